"""Unpickling that builds NumPy arrays, numbers and plain containers, and runs nothing that the file brings along."""

from __future__ import annotations

import collections
import pickle  # the one place that reads a pickle, because a public layout is one: see `_Unpickler`
import pickletools
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from uqseg.errors import FileError, message_of

DEEPEST = 100  # containers inside one another
MOST_VALUES = 2**25  # a value that is referred to again counts again: what hashes or copies it visits it again
CONTAINERS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")  # these fill what is on the stack
KINDS = re.compile(r"[|<>=]?(?P<kind>[?bBhHiIlLqQefdg]|[biuf]\d{1,2}|[SU]\d{1,4})")


def load_arrays(file: Path) -> Any:
    """What the pickle in `file` holds: dicts, lists, tuples, sets, text, numbers and NumPy arrays of numbers.

    Nothing that the file names is imported or called: NumPy's own names stand for small classes of this module.
    Raises FileError naming the first thing that is refused, and for a file that cannot be read.
    """
    try:
        with file.open("rb") as opened:
            _scan(opened)
            opened.seek(0)
            # Files written by Python 2 hold their numbers as text of one byte a character.
            return _plain(_Unpickler(opened, encoding="latin1").load(), {})
    except FileError as error:
        raise FileError(f"{file}: {error}") from error
    except RecursionError as error:
        raise FileError(f"{file}: containers nested too deeply; this is not the published file") from error
    except Exception as error:  # a broken pickle raises almost anything
        reason = message_of(error)
        raise FileError(f"cannot read {file}: {reason}; download it again") from error


def _scan(opened: BinaryIO) -> None:
    """Go through a pickle without building anything. Raises FileError where that would exhaust stack, memory or time.

    Each value on the stack stands as how deep it is and how many values it holds.
    """
    stack: list[list[int] | None] = []
    memo: dict[int, list[int] | None] = {}
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(opened)):
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if name == "MEMOIZE" else argument
            if place > count:
                raise FileError(f"refused: memo entry {place} after {count} steps; this is not the published file")
            memo[place] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("DUP", "MARK"):
            stack.append(stack[-1] if name == "DUP" else None)
        elif name == "POP":
            stack.pop()
        else:
            _step(opcode, stack)


def _step(opcode: pickletools.OpcodeInfo, stack: list[list[int] | None]) -> None:
    """Take from the stack what the step takes, and put there what it leaves."""
    parts: list[list[int] | None] = []
    before = opcode.stack_before
    if pickletools.markobject in before:
        while (part := stack.pop()) is not None:
            parts.append(part)
        before = before[: before.index(pickletools.markobject)]
    below = [stack.pop() for _ in before][::-1]
    if not opcode.stack_after:
        return
    result = below.pop(0) if opcode.name in CONTAINERS else [0, 1]
    inner = [part for part in parts + below if part is not None]
    if result is None:
        raise FileError("refused: a step that fills a mark; this is not the published file")
    result[0] = max([result[0], *(1 + depth for depth, _ in inner)])
    result[1] += sum(size for _, size in inner)
    if result[0] > DEEPEST:
        raise FileError(f"containers nested too deeply, more than {DEEPEST}; this is not the published file")
    if result[1] > MOST_VALUES:
        raise FileError(f"refused: holds more than {MOST_VALUES} values, counted as often as they are referred to")
    stack.append(result)


class _Dtype:
    """What `numpy.dtype` builds, of numbers and text only: an object type would read pointers out of the file."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or KINDS.fullmatch(code) is None:
            raise FileError(f"refused: an array of type {code!r}; expected numbers")
        self.dtype: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, ...); what follows describes records and objects, which are not built.
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """What NumPy's `_reconstruct` and `_frombuffer` build: an array over the bytes in the file."""

    __slots__ = ("array",)

    def __init__(self, kind: Any, shape: Any = (0,), code: Any = b"b") -> None:
        if kind is not _Ndarray:
            raise FileError(f"refused: an array of class {kind!r}; expected numpy.ndarray")
        self.array: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _build(raw, dtype, shape, "F" if fortran else "C")


def _build(raw: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype):
        raise FileError(f"refused: an array of type {dtype!r}; expected numbers")
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    array = np.frombuffer(raw, dtype.dtype)
    return array.reshape(shape, order="F" if order == "F" else "C")


class _FromBuffer(_Array):
    __slots__ = ()

    def __init__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        self.array = _build(raw, dtype, shape, order)


class _Scalar:
    """What NumPy's `scalar` builds: one number."""

    __slots__ = ("value",)

    def __init__(self, dtype: Any, raw: Any = b"") -> None:
        self.value = _build(raw, dtype, (), "C")[()]

    def __setstate__(self, state: object) -> None:
        raise FileError("refused: a state for a number")


class _Bytes(bytes):
    """What `_codecs.encode` builds: protocols before 3 write bytes as text in latin1."""

    def __new__(cls, text: str, encoding: str = "latin1") -> _Bytes:
        if encoding != "latin1" or not isinstance(text, str):
            raise FileError(f"refused: text in the encoding {encoding!r}; expected latin1")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: object) -> None:
        # Every stand-in has this method: without it a pickle could set attributes of the class itself.
        raise FileError("refused: a state for bytes")


class _Ndarray:
    """Stands for `numpy.ndarray`, which a pickle names as a class and never calls itself."""

    __slots__ = ()

    def __init__(self) -> None:
        raise FileError("refused: a call of numpy.ndarray")

    def __setstate__(self, state: object) -> None:
        raise FileError("refused: a state for numpy.ndarray")


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Ndarray,
    ("_codecs", "encode"): _Bytes,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{(m, n): t for m in ("builtins", "__builtin__") for n, t in (("set", set), ("frozenset", frozenset))},
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _FromBuffer),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    """A pickle is a program: this one may name only what ALLOWED lists, and gets stand-ins that hold data."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a class that the pickle names. Raises FileError where ALLOWED lacks it."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise FileError(
                f"refused: the pickle asks for {module}.{name}, and only NumPy arrays and plain containers are read; "
                f"do not trust this file"
            ) from None


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """`value` with arrays in place of their stand-ins; a container that occurs twice is converted once."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _Scalar):
        return value.value
    if isinstance(value, _Dtype):
        return value.dtype
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            plain: Any = {_plain(k, done): _plain(v, done) for k, v in value.items()}
        else:
            plain = type(value)(_plain(v, done) for v in value) if type(value) in (list, tuple) else list(value)
        done[id(value)] = plain
    return done[id(value)]
