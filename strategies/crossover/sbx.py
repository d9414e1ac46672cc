"""Simulated binary crossover, the child that is near the first parent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import number
from strategies.flat import flatten, unflatten
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class SbxCrossover(CrossoverOperator):
    """Scatter every number around that of the first parent, by its distance to the second.

    ``child = 0.5 * [(1 + b) * A + (1 - b) * B]``, for each number by itself with ``u`` drawn
    evenly from ``[0, 1)`` and ``b = (2 u)^(1 / (eta + 1))`` for ``u <= 0.5``, else
    ``b = (1 / (2 - 2 u))^(1 / (eta + 1))``. ``b = 1`` is ``A``; below 1 the number lies between the
    parents, nearer to ``A``, above 1 beyond ``A``, each in half of the cases.

    Two operators share the name of simulated binary crossover. This one never exchanges numbers, so
    it acts as a mutation of the first parent whose steps follow the distance of the parents. The
    other one, :class:`SbxSwapCrossover`, is ``sbx_swap`` here.

    Source: Deb and Agrawal 1995, "Simulated Binary Crossover for Continuous Search Space", Complex
    Systems 9, 115-148; the first child of DEAP's ``cxSimulatedBinary`` and of EvoTorch's
    ``SimulatedBinaryCrossOver``, which cross every number as well. The other child is that of the
    parents in the other order.

    Args:
        eta: How near the child stays, at least 0: higher is nearer; at 0 the mean step is
            not even finite.

    Raises:
        ValueError: ``eta`` is negative or not finite.
    """

    name = "sbx"

    def __init__(self, eta: float = 15.0) -> None:
        self.eta = number("eta", eta, low=0.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = (flatten(parents.spec, each) for each in parents)
        step = spread(rng.random(first.size), self.eta)
        return unflatten(parents.spec, first + step * (first - second))


def spread(u: NDArray[np.float64], eta: float) -> NDArray[np.float64]:
    """Return ``(b - 1) / 2``, the step from a parent in units of its distance to the other.

    With it a child is ``A + step * (A - B)``, the same as ``0.5 * [(1 + b) * A + (1 - b) * B]`` but
    exact for equal numbers, however large ``b``.

    Args:
        u: Even random numbers in ``[0, 1)``.
        eta: Distribution index, at least 0.
    """
    ratio = np.where(u <= 0.5, 2 * u, 1 / (2 * (1 - u)))
    step: NDArray[np.float64] = (ratio ** (1 / (eta + 1)) - 1) / 2
    return step
