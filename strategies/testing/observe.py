"""Calls of an operator's code, with everything noted that it should not do."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.user_code import text_of

# Parts of what Python and NumPy say where something read-only is written to.
_REFUSALS = ("read-only", "mappingproxy", "WRITEABLE", "'bytes' object", "cannot assign to field")


@dataclass(frozen=True, slots=True)
class Call:
    """What one call did.

    Attributes:
        where: What was given, for messages.
        result: What it returned; None where it raised.
        error: What it raised, or None.
        warning: First warning of a floating-point operation, or empty.
        touched: The global generator that it drew from or seeded, or empty.
    """

    where: str
    result: Any
    error: BaseException | None
    warning: str
    touched: str

    @property
    def wrote(self) -> bool:
        """Whether it was stopped from writing into something read-only."""
        if not isinstance(self.error, ValueError | TypeError | AttributeError):
            return False
        return any(part in text_of(self.error) for part in _REFUSALS)


def observe(function: Callable[[], Any], where: str) -> Call:
    """Call a function of an operator and note what it does besides returning something.

    Args:
        function: What to call.
        where: What it is given, for messages.
    """
    result: Any = None
    failure: BaseException | None = None
    # The legacy global generator is what an operator must not use, hence NPY002.
    numpy_before, python_before = np.random.get_state(), random.getstate()  # noqa: NPY002  # as above
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RuntimeWarning)  # divisions by zero, overflows
        try:
            result = function()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # code of the user's own
            failure = error
    touched = ""
    if random.getstate() != python_before:
        touched = "random"
        random.setstate(python_before)
    if not _same_state(np.random.get_state(), numpy_before):  # noqa: NPY002  # as above
        touched = "numpy.random"
        np.random.set_state(numpy_before)  # noqa: NPY002  # as above
    return Call(where, result, failure, str(caught[0].message) if caught else "", touched)


def _same_state(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one[1], other[1])) and one[2:] == other[2:]


def arrays_in(value: Any, path: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield all arrays in nested mappings and sequences, each with its path as Python writes it."""
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from arrays_in(each, f"{path}[{key!r}]")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, each in enumerate(value):
            yield from arrays_in(each, f"{path}[{index}]")


def writable(value: Any) -> Any:
    """Return a deep copy in which everything can be written to, even through ``base``."""
    if isinstance(value, np.ndarray):
        return value.copy()[...]  # a view, so that there is a base
    if isinstance(value, Mapping):
        return {key: writable(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(writable(each) for each in value)
    return value


def equal(one: Any, other: Any) -> bool:
    """Tell whether two results hold the same names and bytes; what is no mapping is not judged."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return type(one) is type(other)
    return set(one) == set(other) and all(same(one[name], other[name]) for name in one)


def same(one: Any, other: Any) -> bool:
    """Tell whether two arrays have the same type, shape and bytes."""
    a, b = np.asarray(one), np.asarray(other)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
