"""How numbers are written for people; files always get them in full."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

DIGITS = 4  # of an argument that is shown to people


def format_number(value: float | None, decimals: int | None = None) -> str:
    """Write a number, a missing one as ``-``.

    Args:
        value: The number.
        decimals: Digits behind the point; by default as many as its size asks for.
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{decimals_for([value]) if decimals is None else decimals}f}"


def decimals_for(values: Iterable[float]) -> int:
    """Return how many digits behind the point suit numbers that stand in one column."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest >= 10_000:
        return 0
    return 1 if largest >= 10 else 3


def rounded(value: Any) -> Any:
    """Return an argument, or what it holds, with four significant digits.

    Adapted step sizes are the product of many random factors: nobody reads sixteen digits of them.
    """
    if isinstance(value, float) and math.isfinite(value):
        short = float(f"{value:.{DIGITS}g}")
        return round(value) if abs(value) >= 10**DIGITS else short
    if isinstance(value, Mapping):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def format_rate(per_s: float | None) -> str:
    """Write a rate per second, or per minute where that is below one; a missing one as ``-``."""
    if per_s is None or math.isnan(per_s):
        return "-"
    return f"{per_s:.1f}/s" if per_s >= 1 else f"{60 * per_s:.1f}/min"


def format_duration(seconds: float | None) -> str:
    """Write a duration as ``h:mm:ss``, an unknown one as ``-:--:--``."""
    if seconds is None:
        return "-:--:--"
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
