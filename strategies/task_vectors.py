"""Task vectors: what each parent has learned since the common ancestor, and how to merge them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import limits, whole_number
from strategies.operator import CrossoverOperator, Family

Shares = Literal["equal", "random"]
Vector = NDArray[np.float64]
"""One tensor of a task vector, in the shape of the tensor."""


class TaskVectorCrossover(CrossoverOperator):
    """Base of the operators that add merged task vectors to the ancestor.

    ``child = ancestor + scale * merge(parent_1 - ancestor, ..., parent_n - ancestor)``, tensor by
    tensor, for weights, biases and LayerNorm alike. ``scale`` is drawn evenly from ``[low, high]``,
    once per child. A subclass says what ``merge`` is.

    Not idempotent: with another ``scale`` than 1, identical parents are left or passed, too.

    Args:
        low: Smallest scale.
        high: Largest scale; equal to ``low`` for a fixed one.
        shares: How much each parent counts: ``equal``, or ``random``, drawn for each child evenly
            from all shares that are at least 0 and sum to one.
        n_parents: How many parents a child has, at least 2.

    Raises:
        ValueError: An argument is outside its range, or ``low`` is above ``high``.
    """

    needs = ("ancestor",)
    idempotent = False

    def __init__(self, low: float, high: float, shares: Shares, n_parents: int) -> None:
        self.low, self.high = limits(low, high)
        if shares not in get_args(Shares):
            raise ValueError(f"shares must be 'equal' or 'random', not {shares!r}")
        self.shares = shares
        self.n_parents = whole_number("n_parents", n_parents, 2)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        scale = rng.uniform(self.low, self.high)
        shares = self._draw_shares(rng)
        child = {}
        for name in parents.spec.shapes:
            ancestor = parents.ancestor[name].astype(np.float64)
            vectors = [parent[name] - ancestor for parent in parents]
            merged = self._merge(vectors, shares, rng)
            child[name] = (ancestor + scale * merged).astype(np.float32)
        return child

    @abstractmethod
    def _merge(
        self, vectors: Sequence[Vector], shares: Sequence[float], rng: np.random.Generator
    ) -> Vector:
        """Return one tensor of the merged task vector.

        Args:
            vectors: The tensor of each parent's task vector.
            shares: How much each parent counts; they sum to one.
            rng: Random stream of this child.
        """

    def _draw_shares(self, rng: np.random.Generator) -> list[float]:
        if self.shares == "random":
            return list(rng.dirichlet(np.ones(self.n_parents)))
        return [1 / self.n_parents] * self.n_parents


def average(vectors: Sequence[Vector], shares: Sequence[float]) -> Vector:
    """Return ``sum_i shares_i * vectors_i``; the shares sum to one."""
    total = np.zeros_like(vectors[0])
    for vector, share in zip(vectors, shares, strict=True):
        total += share * vector
    return total


def elected_average(vectors: Sequence[Vector], shares: Sequence[float]) -> Vector:
    """Return the average of those entries that have the sign which most of the mass has.

    The sign of an entry is that of its average over all vectors; the result is the average, by
    share, over the vectors whose entry has this sign. An entry whose average is 0 stays 0.
    """
    elected = np.sign(average(vectors, shares))
    total, mass = np.zeros_like(elected), np.zeros_like(elected)
    for vector, share in zip(vectors, shares, strict=True):
        agrees = np.sign(vector) == elected
        total += share * np.where(agrees, vector, 0.0)
        mass += share * agrees
    merged: Vector = np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)
    return merged
