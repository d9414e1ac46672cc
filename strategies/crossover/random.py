"""Every tensor from a random parent."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class RandomCrossover(CrossoverOperator):
    """Take every tensor as a whole from one of two parents at random.

    ``child[k] = A[k]`` with probability ``share``, else ``B[k]``, for each tensor ``k`` by itself.
    A layer's weight and bias may come from different parents; :class:`LayerCrossover` keeps them
    together.

    Source: uniform crossover (Syswerda 1989, "Uniform Crossover in Genetic Algorithms", ICGA 3)
    with tensors as genes.

    Args:
        share: Probability of the first parent, in ``[0, 1]``.

    Raises:
        ValueError: ``share`` is outside ``[0, 1]``.
    """

    name = "random"
    n_parents = 2

    def __init__(self, share: float = 0.5) -> None:
        self.share = number("share", share, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = parents
        from_first = rng.random(len(parents.spec.shapes)) < self.share
        return {
            name: (first if take else second)[name].copy()
            for name, take in zip(parents.spec.shapes, from_first, strict=True)
        }
