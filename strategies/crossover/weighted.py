"""A weighted average of two or more parents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import limits, whole_number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers
from strategies.shares import draw_shares


@crossovers.register
class WeightedCrossover(CrossoverOperator):
    """Average parents with one set of random weights per child.

    ``child = t * A + (1 - t) * B`` for all tensors, with ``t`` drawn evenly from ``[low, high]``.
    ``t = 1`` is the first parent, ``t = 0`` the second; outside ``[0, 1]`` the child lies on the
    line through the parents but beyond one of them.

    With more than two parents ``1 - t`` is split among all but the first: every way to split it is
    equally likely (a flat Dirichlet distribution). ``t = 0`` leaves the first parent out.

    Source: whole arithmetical crossover (Michalewicz 1992, "Genetic Algorithms + Data Structures =
    Evolution Programs"); for trained networks Wortsman et al. 2022, "Model soups",
    arXiv:2203.05482, who take equal weights.

    Args:
        low: Smallest weight of the first parent.
        high: Largest weight of the first parent; equal to ``low`` for a fixed weight.
        n_parents: How many parents are averaged, at least 2.

    Raises:
        ValueError: An argument is not finite, ``low`` is above ``high``, or ``n_parents`` is below
            2.
    """

    name = "weighted"

    def __init__(self, low: float = 0.1, high: float = 0.9, n_parents: int = 2) -> None:
        self.low, self.high = limits(low, high)
        self.n_parents = whole_number("n_parents", n_parents, 2)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        weights = draw_shares(self.low, self.high, self.n_parents, rng)
        child: dict[str, NDArray[np.float32]] = {}
        for name in parents.spec.shapes:
            child[name] = weights[0] * parents[0][name]
            for weight, parent in zip(weights[1:], parents[1:], strict=True):
                child[name] += weight * parent[name]
        return child
