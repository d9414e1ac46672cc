"""Checks of the numbers that operators are constructed with."""

from __future__ import annotations

import math
from numbers import Integral, Real


def number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``value`` as a float.

    Raises:
        ValueError: It is not a finite number in ``[low, high]``.
    """
    if not isinstance(value, bool) and isinstance(value, Real):
        converted = float(value)
        if math.isfinite(converted) and low <= converted <= high:
            return converted
    raise ValueError(f"{name} must be a {_range(low, high)}, not {value!r}")


def limits(
    low: object, high: object, smallest: float = -math.inf, largest: float = math.inf
) -> tuple[float, float]:
    """Return the arguments ``low`` and ``high`` of an operator that draws a number between them.

    Raises:
        ValueError: One is not a finite number in ``[smallest, largest]``, or ``low`` is above
            ``high``.
    """
    ends = number("low", low, smallest, largest), number("high", high, smallest, largest)
    if ends[0] > ends[1]:
        raise ValueError(f"low ({ends[0]:g}) must not be above high ({ends[1]:g})")
    return ends


def whole_number(name: str, value: object, low: int) -> int:
    """Return ``value`` as an int.

    Raises:
        ValueError: It is not a whole number of at least ``low``.
    """
    if not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= low:
        return int(value)
    raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")


def _range(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return "finite number"
    if math.isinf(high):
        return f"finite number of at least {low:g}"
    return f"number in [{low:g}, {high:g}]"
