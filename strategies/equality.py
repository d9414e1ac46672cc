"""Equality of values that operators keep, which may hold arrays and NaN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def alike(one: Any, other: Any) -> bool:
    """Tell whether two values are equal: arrays number by number, NaN equal to NaN.

    Args:
        one: Anything: numbers, text, arrays, and lists, tuples and dictionaries of these.
        other: What to compare it with; a list is not alike a tuple, and an array nothing else.
    """
    if one is other:
        return True
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return _alike_arrays(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        same_kind = isinstance(one, list) == isinstance(other, list)
        pairs = zip(one, other, strict=False)
        return same_kind and len(one) == len(other) and all(alike(a, b) for a, b in pairs)
    return bool(one == other) or bool(one != one and other != other)  # NaN alone is unlike itself


def _alike_arrays(one: Any, other: Any) -> bool:
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return False
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return alike(one.tolist(), other.tolist())
