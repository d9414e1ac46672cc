"""Simulated binary crossover with exchange: every number near one of the parents."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import number
from strategies.crossover.sbx import spread
from strategies.flat import flatten, unflatten
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class SbxSwapCrossover(CrossoverOperator):
    """Scatter every number around that of either parent, by the distance between them.

    ``c1 = 0.5 * [(1 + b) * A + (1 - b) * B]`` and ``c2 = 0.5 * [(1 - b) * A + (1 + b) * B]`` with
    ``b`` as in :class:`SbxCrossover`; each number of the child is ``c1``, near ``A``, with
    probability ``share``, else ``c2``, near ``B``, by itself. This is uniform crossover number by
    number with noise on top, and takes the units of unrelated parents apart.

    Source: Deb and Agrawal 1995, "Simulated Binary Crossover for Continuous Search Space", Complex
    Systems 9, 115-148; the exchange as in DEAP's ``cxSimulatedBinaryBounded`` and pymoo's ``SBX``.
    These have bounds, which weights have not, and leave a number as it is in half of the cases;
    with that exchange included a quarter of their first child comes from ``B``, as for ``share``
    0.75.

    Args:
        eta: How near a number stays to that of its parent, at least 0: higher is nearer.
        share: Probability of the first parent, in ``[0, 1]``; 1 is ``sbx``.

    Raises:
        ValueError: ``eta`` is negative or not finite, or ``share`` is outside ``[0, 1]``.
    """

    name = "sbx_swap"

    def __init__(self, eta: float = 15.0, share: float = 0.5) -> None:
        self.eta = number("eta", eta, low=0.0)
        self.share = number("share", share, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = (flatten(parents.spec, each) for each in parents)
        step = spread(rng.random(first.size), self.eta)
        near_first = rng.random(first.size) < self.share
        near, far = np.where(near_first, (first, second), (second, first))
        return unflatten(parents.spec, near + step * (near - far))
