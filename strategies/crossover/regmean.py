"""Layers that answer as the layers of the parents do, in the sense of least squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from populations.network import Block, Weights
from strategies.checks import limits, number, whole_number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers
from strategies.shares import draw_shares

Matrix = NDArray[np.float64]

RIDGE = 1e-4  # of the diagonal of the Gram matrices; float32 leaves errors of about 1e-6 in them


@crossovers.register
class RegMeanCrossover(CrossoverOperator):
    """Solve, layer by layer, for the Linear that is closest to those of the parents on states.

    Let ``W_i`` be weight and bias of a parent's Linear side by side, ``x_i`` what enters it on a
    state with a 1 behind it, and ``G_i = mean x_i x_i^T`` with all entries off the diagonal times
    ``alpha``. The child's ``W`` minimizes the error ``sum_i s_i mean |W x_i - W_i x_i|^2`` of the
    layer on the inputs that each parent gave it (exactly so for ``alpha = 1``)::

        W^T = (sum_i s_i G_i)^-1 sum_i s_i G_i W_i^T

    The first parent has the share ``s_1``, drawn evenly from ``[low, high]`` for each child; the
    others have the rest, split at random where they are several. LayerNorm tensors are averaged by
    these shares.

    Source: Jin et al. 2023, "Dataless Knowledge Fusion by Merging Weights of Language Models",
    arXiv:2212.09849. There the bias is averaged, not part of the regression, and there is no ridge.
    Here 1e-4 of the diagonal is added to the matrix that is inverted, which pulls ``W`` towards the
    average ``sum_i s_i W_i`` of the parents: inputs that are always zero, such as dead units, make
    the matrix singular, and where nothing is known the average is what to fall back on.

    Args:
        alpha: Factor of the entries off the diagonal, in ``[0, 1]``; from 0.1 to 0.9 in the
            authors' experiments. With 0 it is an average of columns, weighted by how large inputs
            are.
        low: Smallest share of the first parent, in ``[0, 1]``.
        high: Largest share of the first parent, in ``[0, 1]``; equal to ``low`` for a fixed one.
        n_parents: Number of parents, at least 2.

    Raises:
        ValueError: ``alpha`` or a share is outside ``[0, 1]``, ``low`` is above ``high``, or there
            are fewer than two parents.
    """

    name = "regmean"
    needs = ("grams",)

    def __init__(
        self, alpha: float = 0.9, low: float = 0.1, high: float = 0.9, n_parents: int = 2
    ) -> None:
        self.alpha = number("alpha", alpha, 0.0, 1.0)
        self.low, self.high = limits(low, high, 0.0, 1.0)
        self.n_parents = whole_number("n_parents", n_parents, 2)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        shares = draw_shares(self.low, self.high, self.n_parents, rng)
        child = {}
        for index, block in enumerate(parents.spec.blocks):
            grams = [self._damped(each[index]) for each in parents.grams]
            layers = [_extended(block, parent) for parent in parents]
            merged = _regress(layers, grams, shares).astype(np.float32)
            child[block.weight] = merged[:, :-1].copy()
            child[block.bias] = merged[:, -1].copy()
            if block.norm is not None:
                for name in (f"{block.norm}.weight", f"{block.norm}.bias"):
                    average = _average([parent[name] for parent in parents], shares)
                    child[name] = average.astype(np.float32)
        return child

    def _damped(self, gram: NDArray[np.float32]) -> Matrix:
        """Return the Gram matrix with its entries off the diagonal times ``alpha``."""
        damped = self.alpha * gram.astype(np.float64)
        np.fill_diagonal(damped, gram.diagonal())
        return damped


def _extended(block: Block, weights: Weights) -> Matrix:
    """Return weight and bias side by side, ``(n_out, n_in + 1)``."""
    return np.column_stack([weights[block.weight], weights[block.bias]]).astype(np.float64)


def _regress(layers: Sequence[Matrix], grams: Sequence[Matrix], shares: Sequence[float]) -> Matrix:
    """Return the layer that is closest to all of them, ``(n_out, n_in + 1)``."""
    # Regressing what differs from the average makes the ridge pull towards it instead of to zero.
    average = _average(layers, shares)
    total = _average(grams, shares)
    pull = _average(
        [gram @ (layer - average).T for gram, layer in zip(grams, layers, strict=True)], shares
    )
    diagonal = total.diagonal()
    ridge = RIDGE * np.where(diagonal > 0, diagonal, 1.0)  # an input that is always 0 has none
    merged: Matrix = average + np.linalg.solve(total + np.diag(ridge), pull).T
    return merged


def _average(arrays: Sequence[NDArray[Any]], shares: Sequence[float]) -> Matrix:
    """Return the sum of arrays, each times the share of its parent."""
    return sum(
        (share * each.astype(np.float64) for share, each in zip(shares, arrays, strict=True)),
        start=np.zeros(arrays[0].shape),
    )
