"""Registries: classes with options that are found by name, or in anybody's module or file."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeGuard, TypeVar

from uqseg.checked import Checked
from uqseg.errors import UsageError, unknown
from uqseg.outside import TREE, classes_in, load_file, running_outside_code, source_hash


class Options(Checked):
    """Options of a method or wrapper, typed and described."""


class Registered:
    """Base of classes that a registry finds. The first line of their docstring is their description."""

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    """Raised when the code changes what it computes: it is part of every key."""

    @classmethod
    def label(cls) -> str:
        """The name that finds this class: as registered or as asked for, else "package.module:Class"."""
        return vars(cls).get("name") or f"{cls.__module__}:{cls.__qualname__}"


R = TypeVar("R", bound=Registered)
C = TypeVar("C", bound=type[Registered])


class Registry(Generic[R]):
    """The classes of one kind ("method"): those of the modules of `package`, and any others that derive from `base`."""

    def __init__(self, kind: str, package: str, base: type[R]) -> None:
        self.kind, self.package, self.base = kind, package, base
        self.classes: dict[str, type[R]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Decorator: register a class under a name. Raises ValueError for a name that this tree uses."""

        def register(cls: C) -> C:
            known = self.classes.get(name)
            if known is not None and known.__module__.partition(".")[0] in TREE:
                raise ValueError(f"{self.kind}: '{name}' is registered twice; give one of them another name")
            cls.name = name
            self.classes[name] = cls  # type: ignore[assignment]
            return cls

        return register

    def names(self) -> list[str]:
        """Names of all registered classes, sorted."""
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        return sorted(self.classes)

    def find(self, label: str) -> type[R]:
        """The class registered as `label`, or the one named by "package.module:Class" or "path/to/file.py:Class"."""
        if not isinstance(label, str):
            raise UsageError(f"{self.kind}: expected a name, got {label!r}")
        if ":" in label:
            return self._find_outside(label)
        if label not in self.classes and label not in self.names():
            if label.endswith(".py"):
                classes = classes_in(label) or ["Class"]
                such = " or ".join(f"{label}:{name}" for name in classes)
                raise UsageError(f"{self.kind} '{label}': give FILE:Class, such as {such}")
            raise unknown(self.kind, label, self.classes)
        return self.classes[label]

    def _find_outside(self, label: str) -> type[R]:
        module, _, attribute = label.rpartition(":")
        base = f"{self.package}.{self.base.__name__}"
        try:
            with running_outside_code():
                loaded = load_file(module) if module.endswith(".py") else importlib.import_module(module)
                cls = getattr(loaded, attribute, None)
                if cls is None:
                    own = [n for n, c in vars(loaded).items() if self._fits(c) and c.__module__ == loaded.__name__]
                    advice = f"choose one of {', '.join(own)}" if own else f"give it one, a subclass of {base}"
                    raise UsageError(f"{module} has no class '{attribute}'; {advice}")
        except UsageError as error:
            raise UsageError(f"{self.kind} '{label}': {error}") from error
        except Exception as error:  # whatever a module raises while it is imported
            expected = "expected importable package.module:Class or path/to/file.py:Class"
            raise UsageError(f"{self.kind} '{label}': {expected}, got {type(error).__name__}: {error}") from error
        if not self._fits(cls):
            got = cls.__qualname__ if inspect.isclass(cls) else repr(cls)
            raise UsageError(f"{self.kind} '{label}': expected a subclass of {base}, got {got}")
        if "name" not in vars(cls):
            cls.name = label
        source_hash(cls)  # type: ignore[arg-type]  # of the text as it is now, while the class is new
        return cls

    def _fits(self, value: object) -> TypeGuard[type[R]]:
        return inspect.isclass(value) and issubclass(value, self.base)

    def options(self, label: str, **values: Any) -> Options:
        """Its options with `values` set; an unknown key or a wrong type is a UsageError naming what exists."""
        kind = self.find(label).Options
        try:
            return kind(**values)
        except UsageError as error:
            raise UsageError(f"{self.kind} '{label}': {error}") from error

    def concrete(self, label: str) -> type[R]:
        """The class, checked to define all that its base asks for. Raises UsageError naming what is missing."""
        cls = self.find(label)
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            raise UsageError(f"{self.kind} '{label}': {cls.__name__} does not define {' and '.join(missing)}")
        return cls
