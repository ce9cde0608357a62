"""Classes from outside this tree: loading them from a file, and the hash of the text they are made of."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from uqseg.errors import UsageError

TREE = ("uqseg", "bench", "baselines")
"""Packages whose classes declare their versions."""


def load_file(path: str | Path) -> ModuleType:
    """The module that a Python file defines, whatever its name; its folder is importable while it loads.

    Modules beside it are loaded for it alone, so that two folders may each have a module `layers`. The same text is
    loaded once, an edited file anew. Raises UsageError where the file is missing or fails to load.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'; give an existing Python file")
    try:
        sources = list(_sources(path, path.parent))
        text = _digest(sources, path.parent, path)
        name = f"outside_{hashlib.sha256(f'{path} {text}'.encode()).hexdigest()[:16]}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        beside = {".".join(_parts(source, path.parent)) for source in sources}
        hidden = {known: sys.modules.pop(known) for known in beside if known in sys.modules}
        sys.modules[name] = module
        sys.path.insert(0, str(path.parent))
        importlib.invalidate_caches()
        try:
            with running_outside_code():
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        finally:
            sys.path.remove(str(path.parent))
            for known in beside:
                sys.modules.pop(known, None)
            sys.modules.update(hidden)
    except Exception as error:
        raise UsageError(f"cannot load {path}: {type(error).__name__}: {error}") from error
    return module


def classes_in(path: str | Path) -> list[str]:
    """Names of the classes that the text of a file defines, those of options left out; its code does not run."""
    try:
        tree = ast.parse(Path(path).expanduser().read_bytes())
    except (OSError, ValueError, SyntaxError):
        return []
    defined = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return [c.name for c in defined if not any(ast.unparse(base).endswith("Options") for base in c.bases)]


class _Printed(io.StringIO):
    """What somebody's module has printed."""


@contextmanager
def running_outside_code() -> Iterator[None]:
    """Import somebody's module in this block: what it prints goes to standard error once all is well, and nothing of it
    is shown where something fails; ending the process is a failure like any other."""
    printed = _Printed()
    try:
        with redirect_stdout(printed):
            yield
    except SystemExit as error:
        raise ImportError(f"it ends the process when it is imported (exit {error.code})") from error
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ImportError(f"{type(error).__name__}: {error}") from error
    (sys.stdout if isinstance(sys.stdout, _Printed) else sys.stderr).write(printed.getvalue())


def trusted(label: str, trust: str | Sequence[str], source: str) -> str:
    """`label`, a name or class that `source` asks for, where it is of this project or in `trust`.

    A class in a file is known by the names of both, since the file may lie in another folder by now: then it is the
    caller's label that is returned. Raises UsageError naming the class otherwise.
    """
    if ":" not in label:
        return label
    for own in (trust,) if isinstance(trust, str) else trust:
        if own == label or (".py:" in label and _file_and_class(own) == _file_and_class(label)):
            return own
    raise UsageError(
        f"{source} would run code from outside this project, '{label}'; if you trust it, name it "
        f"(trust='{label}', on the command line --trust {label})"
    )


def _file_and_class(label: str) -> str:
    return label.replace("\\", "/").rpartition("/")[2]


@cache
def source_hash(cls: Callable[..., Any]) -> str:
    """SHA-256 of the file that defines a class or function and of every module that it imports from its folder.

    "" for one of this tree, "unknown" for one that no file defines (typed into a session). It stays that of the
    first call, near the time when it was loaded.
    """
    if cls.__module__.partition(".")[0] in TREE:
        return ""
    if (file := _file_of(cls)) is None:
        return "unknown"
    package = 0 if cls.__module__.startswith("outside_") else cls.__module__.count(".")
    root = file.parents[package + (file.name == "__init__.py")]
    return _digest(_sources(file, root), root, file)


def _file_of(cls: Callable[..., Any]) -> Path | None:
    """The file that defines it, by its functions: the module's name may stand for another file by now."""
    for value in vars(cls).values():
        if isinstance(value, FunctionType) and (file := Path(value.__code__.co_filename)).is_file():
            return file.resolve()
    try:
        return Path(inspect.getfile(cls)).resolve()
    except (TypeError, OSError):
        return None


def _digest(sources: Iterator[Path] | list[Path], root: Path, first: Path) -> str:
    lines = [
        f"{'.'.join(_parts(source, root))} {hashlib.sha256(source.read_bytes()).hexdigest()}" for source in sources
    ]
    return hashlib.sha256("\n".join([str(first.relative_to(root)), *sorted(lines)]).encode()).hexdigest()


def _parts(source: Path, root: Path) -> tuple[str, ...]:
    """The dotted name, in parts, under which a file below `root` is imported."""
    parts = source.relative_to(root).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def _sources(file: Path, root: Path) -> Iterator[Path]:
    """`file` and all files below `root` that it imports, directly or not, by the import statements in their text."""
    installed, pending, seen = "site-packages" in root.parts, [file], {file}
    own = _parts(file, root)[0]
    while pending:
        source = pending.pop()
        yield source
        for parts in _imports(source, root):
            if parts[0] in TREE or (installed and parts[0] != own):
                continue
            for k in range(1, len(parts) + 1):
                stem = root.joinpath(*parts[:k])
                for candidate in (stem.parent / f"{stem.name}.py", stem / "__init__.py"):
                    if candidate.is_file() and candidate not in seen:
                        seen.add(candidate)
                        pending.append(candidate)


def _imports(source: Path, root: Path) -> Iterator[list[str]]:
    """The dotted names, in parts, that a file's text imports; those of relative imports from `root` on."""
    for node in ast.walk(ast.parse(source.read_bytes(), str(source))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = source.parent.relative_to(root).parts
            base = [*above[: len(above) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ([*base, alias.name] for alias in node.names)
