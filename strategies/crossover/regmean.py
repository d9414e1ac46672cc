"""Layers that answer as the layers of the parents do, in the sense of least squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Block, Weights
from strategies.checks import limits, number, whole_number
from strategies.flat import Vector
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers
from strategies.shares import draw_shares

Matrix = NDArray[np.float64]
Matrices = NDArray[np.float64]
"""One matrix of each parent, ``(n_parents, n_rows, n_columns)``."""

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
        shares = np.array(draw_shares(self.low, self.high, self.n_parents, rng))
        child = {}
        for index, block in enumerate(parents.spec.blocks):
            grams = self._damped(np.array([each[index] for each in parents.grams], np.float64))
            layers = np.array([_extended(block, each) for each in parents], np.float64)
            merged = _regress(layers, grams, shares).astype(np.float32)
            child[block.weight] = merged[:, :-1].copy()
            child[block.bias] = merged[:, -1].copy()
            for name in block.tensors[2:]:  # of the normalization
                tensors = np.array([each[name] for each in parents], np.float64)
                child[name] = (shares[:, None] * tensors).sum(axis=0).astype(np.float32)
        return child

    def _damped(self, grams: Matrices) -> Matrices:
        """Return Gram matrices with their entries off the diagonal times ``alpha``."""
        return grams * np.where(np.eye(grams.shape[-1], dtype=bool), 1.0, self.alpha)


def _extended(block: Block, weights: Weights) -> NDArray[np.float32]:
    """Return weight and bias side by side, ``(n_out, n_in + 1)``."""
    return np.concatenate([weights[block.weight], weights[block.bias][:, None]], axis=1)


def _regress(layers: Matrices, grams: Matrices, shares: Vector) -> Matrix:
    """Return the layer that is closest to those of all parents, ``(n_out, n_in + 1)``.

    Args:
        layers: Shape ``(n_parents, n_out, n_in + 1)``.
        grams: Shape ``(n_parents, n_in + 1, n_in + 1)``.
        shares: Shape ``(n_parents,)``.
    """
    weights = shares[:, None, None]
    # Regressing what differs from the average makes the ridge pull towards it instead of to zero.
    average = (weights * layers).sum(axis=0)
    total = (weights * grams).sum(axis=0)
    pull = (weights * (grams @ (layers - average).swapaxes(1, 2))).sum(axis=0)
    diagonal = total.diagonal()
    ridge = RIDGE * np.where(diagonal > 0, diagonal, 1.0)  # an input that is always 0 has none
    merged: Matrix = average + np.linalg.solve(total + np.diag(ridge), pull).T
    return merged
