"""An average that trusts each parent where its policy depends on the weight."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import limits, whole_number
from strategies.flat import flatten, unflatten
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers
from strategies.shares import draw_shares

FLOOR = 1e-6  # of the Fisher information of a parent, which has norm 1


@crossovers.register
class FisherCrossover(CrossoverOperator):
    """Average parents, each weight by how much the policies of the parents depend on it.

    ``child_j = sum_i s_i F_ij theta_ij / sum_i s_i F_ij`` for every number ``j`` of every tensor.
    ``F_i`` is the diagonal Fisher information of parent ``i`` (see
    :func:`strategies.gradients.fisher_diagonal`), divided by its L2 norm over all tensors so that
    no parent counts more for being sure of itself, and then raised to at least 1e-6. The first
    parent has the share ``s_1``, drawn evenly from ``[low, high]`` for each child; the others have
    the rest, split at random where they are several. A weight that no policy depends on is averaged
    by these shares alone, as all of them are in a network of one action.

    Source: Matena and Raffel 2022, "Merging Models with Fisher-Weighted Averaging",
    arXiv:2111.09832; norm and floor as in the authors' code. There the floor comes before the norm,
    and by default for the first model only.

    Args:
        low: Smallest share of the first parent, in ``[0, 1]``.
        high: Largest share of the first parent, in ``[0, 1]``; equal to ``low`` for a fixed one.
        n_parents: Number of parents, at least 2.

    Raises:
        ValueError: A share is outside ``[0, 1]``, ``low`` is above ``high``, or there are fewer
            than two parents.
    """

    name = "fisher"
    needs = ("fisher",)

    def __init__(self, low: float = 0.1, high: float = 0.9, n_parents: int = 2) -> None:
        self.low, self.high = limits(low, high, 0.0, 1.0)
        self.n_parents = whole_number("n_parents", n_parents, 2)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        shares = draw_shares(self.low, self.high, self.n_parents, rng)
        spec = parents.spec
        weighted, total = np.zeros(spec.n_parameters), np.zeros(spec.n_parameters)
        for parent, fisher, own in zip(parents, parents.fisher, shares, strict=True):
            information = flatten(spec, fisher)
            norm = np.sqrt(np.square(information).sum()) or 1.0  # all of it may be zero
            trust = own * np.maximum(information / norm, FLOOR)
            weighted += trust * flatten(spec, parent)
            total += trust
        return unflatten(spec, weighted / total)
