"""Operators by name: built-in ones, installed plug-ins, and ``module:Class``."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

from strategies.declaration import (
    NAME,
    Fault,
    constructor_faults,
    declaration_faults,
    first_fault,
    missing_methods,
    params_faults,
)
from strategies.errors import (
    OperatorNameError,
    OperatorParameterError,
    PluginError,
    StrategyError,
    UnknownOperatorError,
)
from strategies.operator import CrossoverOperator
from strategies.user_code import import_class, told

T = TypeVar("T")
C = TypeVar("C", bound=type)

FILE_MODULE = "cultivar_plugin_"
"""How the names of modules begin that are loaded from a file of the user's own."""

OWN_FILE = "An operator of your own is found by --plugin FILE"
"""What is said where a name is not known."""


class Registry(Generic[T]):
    """The operators of one kind by name.

    A name is looked up among the registered classes first, then among the entry points of
    installed distributions, then as ``module:Class``. A class found in one of the latter ways is
    registered under its own ``name``, so that one name never stands for two operators.

    Attributes:
        kind: ``crossover``, ``mutation`` or ``selection``; the entry-point group is
            ``cultivar.<kind>``.
        base: Class that all operators of this kind derive from.
    """

    def __init__(self, kind: str, base: type[Any]) -> None:
        self.kind = kind
        self.base = base
        self._classes: dict[str, type[T]] = {}
        self._entry_points: dict[str, metadata.EntryPoint] | None = None
        self._distributions: dict[str, str] = {}
        self._targets: dict[str, str] = {}

    def register(self, cls: C) -> C:
        """Register a class under its ``name``; to be used as a decorator.

        A class that is defined again, as by a notebook cell that runs twice, replaces itself.

        Raises:
            OperatorNameError: The name is taken by another class, or is not snake_case.
            PluginError: The class is abstract or not of this registry's kind.
        """
        self.check(cls)
        self._classes[cls.name] = cls  # type: ignore[attr-defined]  # check() has seen the name
        return cls

    def check(self, cls: type[Any]) -> None:
        """Raise what :meth:`register` would raise for this class, and register nothing."""
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise PluginError(
                f"{_shown(cls)} is not a {self.kind}: derive it from {self.base.__name__}"
            )
        if inspect.isabstract(cls):
            raise PluginError(f"{_shown(cls)} is not complete: define {missing_methods(cls)}")
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise OperatorNameError(
                f"{_shown(cls)} needs a class attribute 'name' in snake_case, not {name!r}"
            )
        other = self._holder(cls, self._entry_points or {})
        if other is not None:
            raise self._taken(name, _shown(cls), other, self._twice(name, cls))

    def name_fault(self, cls: type[Any]) -> Fault | None:
        """Return by whom the name of a class is taken, or None where it is free.

        A file whose operator is installed as well is no fault: it is looked at before it is
        installed again.
        """
        other = self._holder(cls, self._discovered())
        if other is None or self._is_installed(cls):
            return None
        return Fault(
            f"has the name {cls.name!r}, which is taken by {other}", "give it another name"
        )

    def _is_installed(self, cls: type[Any]) -> bool:
        """Tell whether the class of a file is the one that is installed under its name."""
        file, target = _plugin_file(cls), self._targets.get(cls.name, "")
        return file is not None and f".{target}".endswith(f".{Path(file).stem}:{cls.__qualname__}")

    def _holder(self, cls: type[Any], installed: Mapping[str, metadata.EntryPoint]) -> str | None:
        """Return who else has the name of a class, or None."""
        name = getattr(cls, "name", None)
        if not isinstance(name, str):
            return None
        if name in self._classes and _owner(self._classes[name]) != _owner(cls):
            return _shown(self._classes[name])
        if name in installed and _target(installed[name]) != _owner(cls):
            return _describe(installed[name])
        return None

    def _twice(self, name: str, cls: type[Any]) -> str:
        """Return what to do where a plug-in file has a name that is installed, or nothing."""
        distribution = self._distributions.get(name)
        if distribution is None or _plugin_file(cls) is None:
            return ""
        return f"leave out --plugin (plugins:), or pip uninstall {distribution.rpartition(' ')[0]}"

    def forget(self, module: str) -> None:
        """Take out the classes that a module defines, as of a file that failed to load."""
        for name, cls in list(self._classes.items()):
            if cls.__module__ == module:
                del self._classes[name]

    def distribution(self, name: str) -> str | None:
        """Return which installed distribution a name came with, ``my-operators 1.2``, or None."""
        self._discovered()
        return self._distributions.get(name)

    def available(self) -> tuple[str, ...]:
        """Return all names, sorted: the registered ones and those of installed plug-ins.

        Raises:
            OperatorNameError: An installed plug-in declares a name that is taken.
        """
        return tuple(sorted({*self._classes, *self._discovered()}))

    def get(self, name: str) -> type[T]:
        """Return the class that ``name`` stands for.

        Args:
            name: Registered name, name of an entry point, or ``module:Class``.

        Raises:
            UnknownOperatorError: There is none of this name.
            OperatorNameError: The class that was found has a name that is taken.
            PluginError: A plug-in cannot be imported, or is no operator of this kind.
        """
        installed = self._discovered()
        if name in self._classes:
            return self._classes[name]
        if name in installed:
            return self._load(installed, name)
        if ":" in name:
            found: type[T] = import_class(f"{self.kind} {name}", *name.split(":", 1))
            return self.register(found)
        raise UnknownOperatorError(
            f"no {self.kind} named {name!r}.{suggestion(name, self.available())} "
            f"Available: {', '.join(self.available())}. {OWN_FILE}"
        )

    def create(self, name: str, params: Mapping[str, Any] | None = None) -> T:
        """Return a new instance.

        Args:
            name: What :meth:`get` understands.
            params: Arguments of the constructor.

        Raises:
            OperatorParameterError: A parameter is unknown, missing, or has an invalid value, or the
                operator does not keep it as it was given.
            PluginError: The operator declares what cannot be, such as a need that is not known.
            UnknownOperatorError: There is none of this name.
        """
        cls = self.get(name)
        self._refuse(name, first_fault(constructor_faults(cls), cls), OperatorParameterError)
        instance: Any = self.construct(cls, name, params)
        # What is wrong here would otherwise come up when the first child is made, hours later.
        self._refuse(name, first_fault(params_faults(instance), cls), OperatorParameterError)
        self._refuse(name, first_fault(declaration_faults(instance), cls), PluginError)
        made: T = instance
        return made

    def _refuse(self, name: str, fault: Fault | None, error: type[StrategyError]) -> None:
        if fault is not None:
            raise error(f"{self.kind} {name!r} {fault.problem}; {fault.mend}")

    def construct(self, cls: type[T], name: str, params: Mapping[str, Any] | None = None) -> T:
        """Return a new instance of a class that need not be registered.

        Args:
            cls: The class.
            name: What it is called in errors.
            params: Arguments of the constructor.

        Raises:
            OperatorParameterError: A parameter is unknown, missing, or has an invalid value.
            PluginError: A method is missing.
        """
        if inspect.isabstract(cls):
            raise PluginError(
                f"{self.kind} {name!r} is not complete: define {missing_methods(cls)}"
            )
        params = dict(params or {})
        accepted = [
            each for each in inspect.signature(cls).parameters.values() if each.kind in _NAMED
        ]
        names = [each.name for each in accepted]
        allowed = f"Allowed parameters: {', '.join(names) or 'none'}"
        for unknown in (each for each in params if each not in names):
            raise OperatorParameterError(
                f"{self.kind} {name!r} has no parameter {unknown!r}."
                f"{suggestion(unknown, names)} {allowed}"
            )
        for each in accepted:
            if each.default is inspect.Parameter.empty and each.name not in params:
                raise OperatorParameterError(
                    f"{self.kind} {name!r} needs the parameter {each.name!r}: give it "
                    f"with --set {each.name}=... (in a run: params), or give it a default. "
                    f"{allowed}"
                )
        try:
            return cls(**params)
        except Exception as error:  # a constructor is code of the user's own
            raise OperatorParameterError(
                f"{self.kind} {name!r}: {told(error)}. {allowed}"
            ) from error

    def _discovered(self) -> dict[str, metadata.EntryPoint]:
        """Return the entry points that are not loaded yet; look for them the first time."""
        if self._entry_points is None:
            found: dict[str, metadata.EntryPoint] = {}
            for point in metadata.entry_points(group=f"cultivar.{self.kind}"):
                if point.dist is not None:
                    self._distributions[point.name] = f"{point.dist.name} {point.dist.version}"
                    self._targets[point.name] = _target(point)
                taken = found.get(point.name)
                if taken is not None and _target(taken) != _target(point):
                    raise self._taken(point.name, _describe(point), _describe(taken))
                if point.name in self._classes:
                    registered = self._classes[point.name]
                    if _owner(registered) != _target(point):
                        mend = self._twice(point.name, registered)
                        raise self._taken(point.name, _describe(point), _shown(registered), mend)
                else:
                    found[point.name] = point
            self._entry_points = found
        return self._entry_points

    def _load(self, installed: dict[str, metadata.EntryPoint], name: str) -> type[T]:
        point = installed[name]
        source = f"{self.kind} {_describe(point)}"
        cls: type[T] = import_class(source, point.module, point.attr)
        if getattr(cls, "name", None) != name:
            raise OperatorNameError(
                f"{_describe(point)} declares the {self.kind} {name!r}, but its class is named "
                f"{getattr(cls, 'name', None)!r}; make both names equal"
            )
        del installed[name]  # from now on the class holds the name
        return self.register(cls)

    def _taken(self, name: str, new: str, old: str, mend: str = "") -> OperatorNameError:
        return OperatorNameError(
            f"the {self.kind} name {name!r} of {new} is taken by {old}; "
            f"{mend or 'rename one of them, or do not load both'}"
        )


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _owner(cls: type[Any]) -> str:
    return f"{cls.__module__}:{cls.__qualname__}" if isinstance(cls, type) else repr(cls)


def _shown(cls: type[Any]) -> str:
    """Return a class with where it is; of a plug-in file its path, which the user knows."""
    file = _plugin_file(cls)
    return _owner(cls) if file is None else f"{file}:{cls.__qualname__}"


def _plugin_file(cls: type[Any]) -> str | None:
    """Return the plug-in file that a class is from, or None."""
    module = sys.modules.get(getattr(cls, "__module__", ""))
    file = getattr(module, "__file__", None)
    is_plugin = module is not None and module.__name__.startswith(FILE_MODULE)
    return str(file) if is_plugin and file is not None else None


def _target(point: metadata.EntryPoint) -> str:
    return f"{point.module}:{point.attr}"


def _describe(point: metadata.EntryPoint) -> str:
    distribution = "an unknown distribution" if point.dist is None else point.dist.name
    return f"{_target(point)} (installed by {distribution})"


crossovers: Registry[CrossoverOperator] = Registry("crossover", CrossoverOperator)
"""All crossover operators; the mutations and selections stand beside their own contracts."""
