"""Every hidden unit from the parent in which it does more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import number
from strategies.operator import CrossoverOperator, Family


class BusierCrossover(CrossoverOperator):
    """Take every hidden unit, with what it reads and what reads it, from where it is busier.

    A unit is as busy as its activation varies over the states of the task: ``a_u`` and ``b_u`` are
    the standard deviations in the two parents. The first parent gives unit ``u`` with probability
    ``a_u^s / (a_u^s + b_u^s)``, ``s`` being the ``sharpness``. So a dead unit, whose activation is
    always 0, never replaces a living one; where both are dead a coin is tossed.

    A weight between two hidden layers comes with the unit that reads it, as in ``unit`` crossover.
    The output bias, and all of a network without hidden layers, is the first parent's.

    Source: made for this example.

    Args:
        sharpness: 0 tosses coins; the larger, the surer the busier parent is.

    Raises:
        ValueError: ``sharpness`` is negative or not finite.
    """

    name = "busier"
    n_parents = 2
    needs = ("activations",)

    def __init__(self, sharpness: float = 2.0) -> None:
        self.sharpness = number("sharpness", sharpness, low=0.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = parents
        child = {name: first[name].copy() for name in parents.spec.shapes}
        ours, theirs = parents.activations
        for layer, a, b in zip(parents.spec.units, ours, theirs, strict=True):
            from_first = rng.random(layer.n_units) < self._share(a.std(axis=0), b.std(axis=0))
            # The next layer's incoming rows replace these outgoing columns: the reader decides.
            for name, axis in (*layer.incoming, *layer.outgoing):
                along = [1] * first[name].ndim
                along[axis] = layer.n_units
                child[name] = np.where(from_first.reshape(along), first[name], second[name])
        return child

    def _share(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of the first parent for each unit, shape ``(n_units,)``."""
        busiest = np.maximum(a, b).astype(np.float64)
        busiest[busiest == 0] = 1
        # Relative to the larger one, so that a large power cannot overflow.
        ours, theirs = (a / busiest) ** self.sharpness, (b / busiest) ** self.sharpness
        both = ours + theirs
        share: NDArray[np.float64] = np.full_like(both, 0.5)
        return np.divide(ours, both, out=share, where=both > 0)
