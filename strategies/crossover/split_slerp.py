"""Spherical interpolation that leans to one parent before a random point, to the other behind."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import limits
from strategies.flat import flatten, layout_of, unflatten
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers
from strategies.spherical import LINEAR, arc_cosines, arc_weights


@crossovers.register
class SplitSlerpCrossover(CrossoverOperator):
    """Interpolate two parents along a great circle, with exchanged shares behind a random point.

    ``child_j = slerp(t)_j`` before the split point and ``slerp(1 - t)_j`` from it on, where
    ``slerp(t) = [sin(t W) A + sin((1 - t) W) B] / sin W``. ``A`` and ``B`` are all weights and
    biases of a network as one flat vector, ``W`` is the angle between these, and ``t``, drawn
    evenly from ``[low, high]``, is the share of the first parent before the split point.

    - Layout: layer after layer from input to output, in each unit after unit (the actions in the
      last layer), for each its row of the weight and its entries of the bias and the normalization.
    - The split point is drawn evenly among the numbers of this layout and moved to the start of
      the unit that it falls into, so that no unit is split. Before the first unit it leaves
      ``slerp(1 - t)`` for the whole network.
    - A LayerNorm is interpolated linearly with the share of its unit and has no part in the angle,
      for the reason given in :class:`SlerpCrossover`.
    - Networks that are nearly parallel or opposite: see :func:`strategies.spherical.arc_weights`.

    Source: Abrantes et al. 2025, "Competition and Attraction Improve Model Fusion" (M2N2),
    arXiv:2508.16204, and its code (``slerp_w_splitpoint``), where the point may split a unit and
    opposite networks cancel.

    Args:
        low: Smallest share of the first parent before the split point, in ``[0, 1]``.
        high: Largest share of the first parent before the split point.

    Raises:
        ValueError: An argument is outside ``[0, 1]``, or ``low`` is above ``high``.
    """

    name = "split_slerp"

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = limits(low, high, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = (flatten(parents.spec, each) for each in parents)
        split = rng.integers(parents.spec.n_parameters)
        t = rng.uniform(self.low, self.high)
        layout = layout_of(parents.spec)
        ends = np.bincount(layout.unit).cumsum()  # of each unit in the layout
        is_before = (ends <= split)[layout.unit]
        groups = np.where(layout.layer > 0, 1, LINEAR)
        cosine = arc_cosines(first, second, groups)
        before, behind = arc_weights(cosine, t), arc_weights(cosine, 1 - t)
        a, b = np.concatenate([before, behind], axis=1)  # of groups before, then of groups behind
        side = np.where(is_before, groups, len(cosine) + groups)
        return unflatten(parents.spec, a[side] * first + b[side] * second)
