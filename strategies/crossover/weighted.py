"""A weighted average of two parents."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class WeightedCrossover(CrossoverOperator):
    """Average two parents with one random weight per child.

    ``child = t * A + (1 - t) * B`` for all tensors, with ``t`` drawn evenly from ``[low, high]``.
    ``t = 1`` is the first parent, ``t = 0`` the second; outside ``[0, 1]`` the child lies on the
    line through the parents but beyond one of them.

    Source: whole arithmetical crossover (Michalewicz 1992, "Genetic Algorithms + Data Structures =
    Evolution Programs"); for trained networks Wortsman et al. 2022, "Model soups",
    arXiv:2203.05482.

    Args:
        low: Smallest weight of the first parent.
        high: Largest weight of the first parent; equal to ``low`` for a fixed weight.

    Raises:
        ValueError: An argument is not finite, or ``low`` is above ``high``.
    """

    name = "weighted"
    n_parents = 2

    def __init__(self, low: float = 0.1, high: float = 0.9) -> None:
        self.low = number("low", low)
        self.high = number("high", high)
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not be above high ({self.high:g})")

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = parents
        t = rng.uniform(self.low, self.high)
        return {name: t * first[name] + (1 - t) * second[name] for name in parents.spec.shapes}
