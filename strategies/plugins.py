"""Operators from a Python file that the user names."""

from __future__ import annotations

import importlib.util
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from populations.regular_files import is_regular
from strategies.errors import PluginError, StrategyError
from strategies.mutation import mutations
from strategies.registry import FILE_MODULE, Registry, crossovers
from strategies.selection import selections
from strategies.user_code import where_raised

REGISTRIES: tuple[Registry[Any], ...] = (crossovers, mutations, selections)
"""The registries of all kinds of operators."""

_loaded: dict[Path, ModuleType] = {}


def plugin_modules() -> tuple[ModuleType, ...]:
    """Return the modules of all loaded plug-in files, in the order of their loading.

    Other processes cannot import them by name: whoever sends an operator to another process ships
    these modules by value.
    """
    return tuple(_loaded.values())


def load_plugin_file(path: str | Path) -> ModuleType:
    """Execute a Python file and register every operator that it defines.

    This runs the code in the file. Crossovers, mutations and selections are registered under their
    ``name``; abstract classes without a name and classes that the file only imports are not. A file
    that is loaded already is not executed again.

    Args:
        path: A ``.py`` file.

    Returns:
        The module, found in ``sys.modules`` as ``cultivar_plugin_<stem>``, with a number behind it
        where two files share a stem.

    Raises:
        PluginError: There is no such file, it raises an error while it is executed, or it defines
            no operator.
        OperatorNameError: It defines an operator under a name that is taken. Nothing is registered.
    """
    file = Path(path).resolve()
    if file in _loaded:
        return _loaded[file]
    with ExitStack() as undo:
        module = _execute(file, undo)
        operators = _operators(module)
        for registry, cls in operators:
            registry.check(cls)
        for registry, cls in operators:
            registry.register(cls)
        undo.pop_all()
    _loaded[file] = module
    return module


def operators_in_file(path: str | Path) -> list[tuple[Registry[Any], type[Any]]]:
    """Return the operators that a Python file defines, each with the registry of its kind.

    This runs the code in the file. Nothing is registered that does not register itself, so that an
    operator can be looked at whose name is taken, or is no name.

    Args:
        path: A ``.py`` file.

    Raises:
        PluginError: There is no such file, it raises an error while it is executed, or it defines
            no operator.
    """
    file = Path(path).resolve()
    if file in _loaded:
        return _operators(_loaded[file])
    with ExitStack() as undo:
        operators = _operators(_execute(file, undo))
        undo.pop_all()
    return operators


def _execute(file: Path, undo: ExitStack) -> ModuleType:
    """Run the file as a module of a unique name; ``undo`` takes it and its operators out again."""
    if file.suffix != ".py" or not is_regular(file):
        raise PluginError(f"expected a plug-in file, a .py file, but there is none at {file}")
    stem = FILE_MODULE + re.sub(r"\W", "_", file.stem)
    name, number = stem, 1
    while name in sys.modules:
        number += 1
        name = f"{stem}_{number}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    undo.callback(sys.modules.pop, name, None)
    for registry in REGISTRIES:
        undo.callback(registry.forget, name)
    try:
        spec.loader.exec_module(module)
    except StrategyError:
        raise  # it registers its operators itself, and one of them has a name that is taken
    except (SyntaxError, ImportError) as error:
        raise PluginError(f"cannot load the plug-in file {file}: {error}") from error
    except Exception as error:  # the file is code of the user's own
        what = f"{type(error).__name__}{where_raised(error, str(file))}: {error}"
        raise PluginError(f"cannot load the plug-in file {file}: {what}") from error
    return module


def _operators(module: ModuleType) -> list[tuple[Registry[Any], type[Any]]]:
    """Return the operator classes that the module defines itself, in the order of the file."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    operators = [
        (registry, cls)
        for cls in dict.fromkeys(classes)  # a class may have two names
        if cls.__module__ == module.__name__
        for registry in REGISTRIES
        if issubclass(cls, registry.base) and not _is_unnamed_base(cls)
    ]
    if not operators:
        raise PluginError(
            f"{module.__file__} defines no operator: expected a class with a 'name' that derives "
            "from CrossoverOperator, Mutation or Selection"
        )
    return operators


def _is_unnamed_base(cls: type[Any]) -> bool:
    """Tell whether a class is there for others to derive from: abstract, and without a name."""
    return bool(getattr(cls, "__abstractmethods__", ())) and not hasattr(cls, "name")
