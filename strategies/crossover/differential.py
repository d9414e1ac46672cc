"""The first parent, moved by the difference of two others."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import number
from strategies.flat import flatten, unflatten
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class DifferentialCrossover(CrossoverOperator):
    """Add a multiple of the difference of two parents to a third: ``A + factor * (B - C)``.

    Each number of the child is ``A_j + factor * (B_j - C_j)`` with probability ``rate``, by itself,
    else ``A_j``; one number, each as likely, is always moved. The first parent is both the base
    that is moved and the target whose numbers are kept, so a child stays near it, and steps become
    shorter as a population converges. A mask per number, as in the source, does no harm here: what
    it mixes are a network and a moved copy of it, not two unrelated networks.

    Source: Storn and Price 1997, "Differential Evolution", Journal of Global Optimization 11,
    341-359. There the numbers that are not moved come from a fourth vector, which the child then
    competes with; that base and target are one is the convention of pymoo's ``DEX``.

    Args:
        factor: Length of the step, in ``[0, 2]``.
        rate: Probability that a number is moved, in ``[0, 1]``; 0 moves one number.

    Raises:
        ValueError: An argument is outside its range.
    """

    name = "differential"
    n_parents = 3

    def __init__(self, factor: float = 0.5, rate: float = 0.9) -> None:
        self.factor = number("factor", factor, 0.0, 2.0)
        self.rate = number("rate", rate, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        base, plus, minus = (flatten(parents.spec, each) for each in parents)
        is_moved = rng.random(base.size) < self.rate
        is_moved[rng.integers(base.size)] = True
        moved = base + self.factor * (plus - minus)
        return unflatten(parents.spec, np.where(is_moved, moved, base))
