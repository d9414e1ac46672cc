"""Task vectors: what each parent has learned since the common ancestor, and how to merge them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.checks import limits, whole_number
from strategies.flat import Vector, flatten, unflatten
from strategies.operator import CrossoverOperator, Family

Shares = Literal["equal", "random"]
Vectors = NDArray[np.float64]
"""The task vectors of several parents, ``(n_parents, n_parameters)``."""


class TaskVectorCrossover(CrossoverOperator):
    """Base of the operators that add merged task vectors to the ancestor.

    ``child = ancestor + scale * merge(parent_1 - ancestor, ..., parent_n - ancestor)``, for
    weights, biases and LayerNorm alike. ``scale`` is drawn evenly from ``[low, high]``,
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
        spec = parents.spec
        ancestor = flatten(spec, parents.ancestor)
        vectors = np.stack([flatten(spec, parent) for parent in parents]) - ancestor
        return unflatten(spec, ancestor + scale * self._merge(spec, vectors, shares, rng))

    @abstractmethod
    def _merge(
        self, spec: NetworkSpec, vectors: Vectors, shares: Vector, rng: np.random.Generator
    ) -> Vector:
        """Return the merged task vector, ``(n_parameters,)``.

        Args:
            spec: Architecture of the parents.
            vectors: Task vectors of the parents.
            shares: How much each parent counts, ``(n_parents,)``; they sum to one.
            rng: Random stream of this child.
        """

    def _draw_shares(self, rng: np.random.Generator) -> Vector:
        if self.shares == "random":
            return rng.dirichlet(np.ones(self.n_parents))
        return np.full(self.n_parents, 1 / self.n_parents)


def average(vectors: Vectors, shares: Vector) -> Vector:
    """Return ``sum_i shares_i * vectors_i``; the shares sum to one."""
    total: Vector = (shares[:, None] * vectors).sum(axis=0)
    return total


def elected_average(vectors: Vectors, shares: Vector) -> Vector:
    """Return the average of those entries that have the sign which most of the mass has.

    The sign of an entry is that of its average over all vectors; the result is the average, by
    share, over the vectors whose entry has this sign. An entry whose average is 0 stays 0.
    """
    agrees = np.sign(vectors) == np.sign(average(vectors, shares))
    total = average(vectors * agrees, shares)
    mass = average(agrees, shares)
    merged: Vector = np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)
    return merged
