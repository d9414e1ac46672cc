"""What an operator could keep between calls, and how to take it back."""

from __future__ import annotations

import pickle
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from strategies.declaration import Fault
from strategies.user_code import raised


class State:
    """All that an operator can change between two calls, as it was before the first one.

    That is what the instance holds, what its classes hold, and the globals, defaults and closures
    of their functions. An operator may keep in these what it computed, as long as no child depends
    on which children were made before.

    Args:
        operator: The operator, which has not been called yet.
    """

    def __init__(self, operator: Any) -> None:
        self._operator = operator
        classes = [cls for cls in type(operator).__mro__ if not _is_foreign(cls.__module__)]
        memory = _Memory({_package(cls.__module__) for cls in classes})
        memory.keep(operator)
        for cls in classes:
            memory.keep_class(cls)
        self._undo = memory.undo
        self.pickle_fault: Fault | None = None  # why a worker cannot get the operator
        try:
            self._pickle = pickle.dumps(operator)
            pickle.loads(self._pickle)
        except Exception as error:  # noqa: BLE001  # the operator is code of the user's own
            self.pickle_fault = Fault(
                f"cannot be pickled: it {raised(error, operator)}",
                "define the class at the top of a module, and keep no functions or files on it",
            )

    def restored(self) -> Any:
        """Return the operator as it was, with everything taken back that its calls have left."""
        for undo in self._undo:
            undo()
        return self._operator

    def unpickled(self) -> Any:
        """Return what a worker gets of the operator before its first call."""
        self.restored()
        return pickle.loads(self._pickle)


class _Memory:
    """Walks through values and keeps what each of them holds.

    Values stay the same objects when they are filled again, so that nothing that refers to them
    needs to be known.

    Args:
        packages: Whose functions to walk through.

    Attributes:
        undo: Functions that fill the values again.
    """

    def __init__(self, packages: set[str]) -> None:
        self.undo: list[Callable[[], object]] = []
        self._packages = packages
        self._seen: dict[int, Any] = {}  # the values, so that no id is used again

    def keep(self, value: Any) -> None:
        """Keep what a value holds, and what is held by that."""
        if id(value) in self._seen or isinstance(value, type | ModuleType):
            return
        self._seen[id(value)] = value
        held: tuple[Any, ...] = ()
        if isinstance(value, dict):
            held = tuple(value.values())
            self.undo.append(partial(_refill, value, dict(value)))
        elif isinstance(value, list | set | deque):
            held = tuple(value)
            self.undo.append(partial(_refill, value, held))
        elif isinstance(value, tuple | frozenset):
            held = tuple(value)
        elif isinstance(value, np.ndarray | bytearray):
            if not isinstance(value, np.ndarray) or value.flags.writeable:
                self.undo.append(partial(_overwrite, value, value.copy()))
        elif isinstance(value, FunctionType):
            self._keep_function(value)
        elif isinstance(value, CellType):
            held = self._keep_cell(value)
        elif isinstance(value, staticmethod | classmethod):
            held = (value.__func__,)
        elif isinstance(value, property):
            held = (value.fget,)
        elif callable(getattr(value, "cache_clear", None)):
            if _package(getattr(value, "__module__", "")) in self._packages:
                self.undo.append(value.cache_clear)
                held = (getattr(value, "__wrapped__", None),)
        elif hasattr(value, "__dict__") and not _is_foreign(type(value).__module__):
            held = (vars(value),)
        for each in held:
            self.keep(each)

    def keep_class(self, cls: type[Any]) -> None:
        """Keep the attributes of a class, and what they hold."""
        attributes = dict(vars(cls))
        self.undo.append(partial(_reset_class, cls, attributes))
        for name, value in attributes.items():
            if isinstance(value, FunctionType) or not name.startswith("__"):
                self.keep(value)

    def _keep_function(self, function: FunctionType) -> None:
        """Keep defaults, closure and attributes of a function, and the globals it mentions."""
        if _package(function.__module__ or "") not in self._packages:
            return
        for value in (function.__defaults__, function.__kwdefaults__, function.__closure__):
            self.keep(value)
        self.keep(vars(function))
        known = function.__globals__
        mentioned = {name: known[name] for name in _names(function.__code__) if name in known}
        self.undo.append(partial(known.update, mentioned))
        for value in mentioned.values():
            self.keep(value)

    def _keep_cell(self, cell: CellType) -> tuple[Any, ...]:
        try:
            content = cell.cell_contents
        except ValueError:  # empty
            return ()
        self.undo.append(partial(setattr, cell, "cell_contents", content))
        return (content,)


def _names(code: CodeType) -> set[str]:
    """Return the names that a function and the functions in it mention."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _refill(value: Any, items: Any) -> None:
    value.clear()
    if isinstance(value, dict | set):
        value.update(items)
    else:
        value.extend(items)


def _overwrite(value: Any, content: Any) -> None:
    if isinstance(value, np.ndarray):
        value[...] = content
    else:
        value[:] = content


def _reset_class(cls: type[Any], attributes: dict[str, Any]) -> None:
    for name, value in list(vars(cls).items()):
        if name not in attributes:
            delattr(cls, name)
        elif value is not attributes[name]:
            setattr(cls, name, attributes[name])


def _package(module: str) -> str:
    return module.partition(".")[0]


def _is_foreign(module: str) -> bool:
    """Tell whether a module is Python's or NumPy's own, which operators do not keep things in."""
    return _package(module) in sys.stdlib_module_names or _package(module) == "numpy"
