"""Every tensor from a random parent."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from populations.network import Weights
from strategies.checks import number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers

Order = Literal["network", "alphabetical"]


@crossovers.register
class RandomCrossover(CrossoverOperator):
    """Take every tensor as a whole from one of two parents at random.

    ``child[k] = A[k]`` with probability ``share``, else ``B[k]``, for each tensor ``k`` by itself.
    A layer's weight and bias may come from different parents; :class:`LayerCrossover` keeps them
    together.

    Source: uniform crossover (Syswerda 1989, "Uniform Crossover in Genetic Algorithms", ICGA 3)
    with tensors as genes. In ``alphabetical`` order a generator gives the child that AgentFarm's
    recombination pipeline makes of it.

    Args:
        share: Probability of the first parent, in ``[0, 1]``.
        order: Which tensor the first random number decides, which the second, and so on: those of
            the ``network`` from input to output, or of their names in ``alphabetical`` order. The
            distribution of children is the same.

    Raises:
        ValueError: ``share`` is outside ``[0, 1]``, or ``order`` is not known.
    """

    name = "random"
    n_parents = 2

    def __init__(self, share: float = 0.5, order: Order = "network") -> None:
        self.share = number("share", share, 0.0, 1.0)
        if order not in get_args(Order):
            raise ValueError(f"order must be 'network' or 'alphabetical', not {order!r}")
        self.order = order

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = parents
        names = list(parents.spec.shapes)
        drawn = sorted(names) if self.order == "alphabetical" else names
        from_first = dict(zip(drawn, rng.random(len(drawn)) < self.share, strict=True))
        return {name: (first if from_first[name] else second)[name].copy() for name in names}
