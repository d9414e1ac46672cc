"""Kinds of numbers that options take; what is no such number is told in one sentence."""

from __future__ import annotations

import math
from typing import Any

import click
from click.types import FloatParamType, IntParamType

LARGEST_COUNT = 10_000_000
LARGEST_SEED = 2**63 - 1  # torch takes no larger one, NumPy no negative one


class Count(click.IntRange):
    """A number of things; one that no computer holds is refused, without a bound in every help."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the count, or fail with one sentence."""
        count: int = super().convert(value, param, ctx)
        if count > LARGEST_COUNT:
            self.fail(f"{count} is more than {LARGEST_COUNT}, the most there may be.", param, ctx)
        return count


class Finite(FloatParamType):
    """A finite number; a plain ``float`` lets NaN through."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail with one sentence."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Number(Finite, click.FloatRange):
    """A finite number in a range, which is part of every help."""


class Seed(IntParamType):
    """A seed that every generator takes; an ``IntRange`` would print the bounds into every help."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seed, or fail with one sentence."""
        seed: int = super().convert(value, param, ctx)
        if not 0 <= seed <= LARGEST_SEED:
            self.fail(f"{seed} is not a whole number from 0 to {LARGEST_SEED}.", param, ctx)
        return seed


COUNT = Count(min=1)
COUNT_OR_ZERO = Count(min=0)
FINITE = Finite()
POSITIVE = Number(min=0, min_open=True)
NOT_NEGATIVE = Number(min=0)
SHARE = Number(min=0, max=1)
FRACTION = Number(min=0, max=1, max_open=True)
DECAY = Number(min=0, max=1, min_open=True)
INSIDE = Number(min=0, max=1, min_open=True, max_open=True)
SEED = Seed()
