"""Every hidden unit from one parent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class UnitCrossover(CrossoverOperator):
    """Take every hidden unit, with what it reads and what reads it, from one of two parents.

    Each unit belongs to the first parent with probability ``share``. Its owner gives its incoming
    row, its bias, its normalization, and its outgoing column. Two conventions settle the rest:

    - a weight between two hidden layers has a unit on either side; the owner of the unit that
      *reads* (the row) gives it, so incoming rows are always whole, and outgoing columns are whole
      in the output layer;
    - the output bias belongs to no unit; it comes as a whole from the first parent with
      probability ``share``. In a network without hidden layers the output weight comes with it.

    Source: unit-level crossover as in Uriot and Izzo 2020, "Safe Crossover of Neural Networks
    Through Neuron Alignment", arXiv:2003.10306, which aligns the parents first.

    Args:
        share: Probability of the first parent, in ``[0, 1]``.

    Raises:
        ValueError: ``share`` is outside ``[0, 1]``.
    """

    name = "unit"
    n_parents = 2

    def __init__(self, share: float = 0.5) -> None:
        self.share = number("share", share, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = parents
        from_first = rng.random(1) < self.share
        # By tensor, which entries the first parent gives, in a shape that broadcasts.
        owners: dict[str, NDArray[np.bool_]] = dict.fromkeys(parents.spec.shapes, from_first)
        for layer in parents.spec.units:
            from_first = rng.random(layer.n_units) < self.share
            # The next layer's incoming rows replace these outgoing columns: the reader decides.
            for name, axis in (*layer.incoming, *layer.outgoing):
                is_row = axis == 0 and len(parents.spec.shapes[name]) == 2
                owners[name] = from_first[:, None] if is_row else from_first
        return {name: np.where(owners[name], first[name], second[name]) for name in owners}
