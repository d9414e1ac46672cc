"""Spherical interpolation that leans to one parent before a random point, to the other behind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import limits
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers
from strategies.spherical import arc_weights


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
        first, second = parents
        split = int(rng.integers(parents.spec.n_parameters))
        t = rng.uniform(self.low, self.high)
        (a, b), (a_behind, b_behind) = self._arcs(parents, t)
        child: dict[str, NDArray[np.float32]] = {}
        for block in parents.spec.blocks:
            unit_size = block.n_in + len(block.tensors) - 1  # its row and its entry of each vector
            is_before = np.arange(1, block.n_out + 1) * unit_size <= split  # (n_out,)
            split -= block.n_out * unit_size
            x, y = np.where(is_before, a, a_behind), np.where(is_before, b, b_behind)
            share = np.where(is_before, t, 1 - t)
            shares = {block.weight: (x[:, None], y[:, None]), block.bias: (x, y)}
            for name in block.tensors:
                x, y = shares.get(name, (share, 1 - share))
                child[name] = (x * first[name] + y * second[name]).astype(np.float32)
        return child

    def _arcs(
        self, parents: Family, t: float
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return how much of each parent is in ``slerp(t)``, and in ``slerp(1 - t)``."""
        names = [name for block in parents.spec.blocks for name in (block.weight, block.bias)]
        flat = [np.concatenate([each[name].ravel() for name in names]) for each in parents]
        return [arc_weights(flat[0], flat[1], share) for share in (t, 1 - t)]
