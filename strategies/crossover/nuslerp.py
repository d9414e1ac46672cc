"""Spherical interpolation of two parents, unit by unit."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import limits
from strategies.flat import flatten, layout_of, unflatten
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers
from strategies.spherical import arc_cosines, arc_weights


@crossovers.register
class NuslerpCrossover(CrossoverOperator):
    """Interpolate two parents along great circles, one per unit.

    For row ``r`` of every Linear, the incoming weights of one unit or action with its bias as one
    vector, ``child_r = [sin(t W_r) A_r + sin((1 - t) W_r) B_r] / sin W_r`` with the angle ``W_r``
    between ``A_r`` and ``B_r``. ``t`` is drawn evenly from ``[low, high]``, once per child, and is
    the share of the first parent. :class:`SlerpCrossover` has one angle per layer; here every unit
    keeps its own length, whether its two versions agree or not.

    - A LayerNorm is interpolated linearly with ``t``, as in :class:`SlerpCrossover`.
    - Rows that are nearly parallel, or zero as those of a dead unit, are interpolated linearly.
    - Nearly opposite rows are not mixed, as they would cancel and leave a unit that reads almost
      nothing: the row of the parent with the larger share is taken. See
      :func:`strategies.spherical.arc_weights`.

    Source: mergekit's ``nuslerp``, there with ``nuslerp_flatten: false`` and
    ``nuslerp_row_wise: false``, which takes the last axis of a tensor, our rows, as vectors. There
    biases are interpolated by themselves, opposite rows cancel, rows are linear only where they
    are parallel up to rounding, and a base model may be subtracted first, which is not offered
    here.

    Args:
        low: Smallest share of the first parent, in ``[0, 1]``.
        high: Largest share of the first parent; equal to ``low`` for a fixed one.

    Raises:
        ValueError: An argument is outside ``[0, 1]``, or ``low`` is above ``high``.
    """

    name = "nuslerp"

    def __init__(self, low: float = 0.1, high: float = 0.9) -> None:
        self.low, self.high = limits(low, high, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = (flatten(parents.spec, each) for each in parents)
        t = rng.uniform(self.low, self.high)
        groups = layout_of(parents.spec).row
        a, b = arc_weights(arc_cosines(first, second, groups), t)
        return unflatten(parents.spec, a[groups] * first + b[groups] * second)
