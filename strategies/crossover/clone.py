"""A copy of one parent: a control."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class CloneCrossover(CrossoverOperator):
    """Copy the first parent: ``child = A``.

    A control: what mutation, fine-tuning and selection reach without any crossover.
    """

    name = "clone"
    n_parents = 1

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        return {name: parents[0][name].copy() for name in parents.spec.shapes}
