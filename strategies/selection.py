"""Selection: which genomes become the parents of a child.

All selections here look at ranks only, so they do not depend on the scale of the returns. Of two
candidates of equal fitness the one with the lower index counts as the fitter one. A candidate whose
fitness is NaN (it failed, or was never scored) is never selected.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from populations.reasons import shortened, told
from strategies.checks import number, whole_number
from strategies.errors import SelectionError
from strategies.operator import constructor_params
from strategies.registry import Registry


class Selection(ABC):
    """Chooses the parents of one child.

    A subclass sets ``name``, keeps every constructor argument in an attribute of the same name, and
    implements :meth:`draw`, which sees ranks only; or it overrides :meth:`select`.
    """

    name: ClassVar[str]

    def select(
        self, fitness: NDArray[np.float64], n_parents: int, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Return the indices of the parents of one child.

        Args:
            fitness: Fitness of each candidate, higher is better, shape ``(n_candidates,)``.
            n_parents: Number of parents, 0 or more.
            rng: Random stream, the only source of randomness.

        Returns:
            Distinct indices into ``fitness``, fitter first.

        Raises:
            SelectionError: Fewer candidates than ``n_parents`` have a fitness.
            ValueError: :meth:`draw` gave something else than it should.
        """
        ranking = fittest_first(fitness)
        if len(ranking) < n_parents:
            raise SelectionError(
                f"{n_parents} parents are needed, but only {len(ranking)} of {len(fitness)} "
                "candidates have a fitness"
            )
        if len(ranking) == n_parents:
            return tuple(int(index) for index in ranking)
        drawn = self.draw(len(ranking), n_parents, rng)
        ranks = sorted(_distinct("draw", drawn, n_parents, len(ranking)))
        return tuple(int(ranking[rank]) for rank in ranks)

    @abstractmethod
    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        """Return ``n_parents`` distinct ranks below ``n_candidates``, in any order.

        Args:
            n_candidates: Number of candidates, more than ``n_parents``; rank 0 is the fittest.
            n_parents: Number of ranks to draw.
            rng: Random stream, the only source of randomness.
        """

    @property
    def params(self) -> dict[str, Any]:
        """Constructor arguments by name."""
        return constructor_params(self)


selections: Registry[Selection] = Registry("selection", Selection)
"""All selections by name."""


class CheckedSelection:
    """Asks a selection for parents, and takes nothing else than parents from it.

    A selection is code of the user's own, and chooses where the whole run is decided: what it gets
    wrong must not be believed, nor end the run with anything but a sentence.

    Attributes:
        selection: The selection that is asked.
    """

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def select(
        self, fitness: NDArray[np.float64], n_parents: int, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Return the indices of the parents of one child; see :meth:`Selection.select`.

        Indices in another order are sorted, fitter first, ties by index: it is clear who the
        parents are.

        Raises:
            SelectionError: Whatever the selection raised; or it did not give ``n_parents``
                different indices of candidates that have a fitness.
        """
        shown = np.array(fitness, np.float64)
        shown.flags.writeable = False
        try:
            chosen = self.selection.select(shown, n_parents, rng)
            indices = _distinct("select", chosen, n_parents, len(shown))
            for index in indices:
                if np.isnan(shown[index]):
                    raise ValueError(f"select gave candidate {index}, which has no fitness")
        except (Exception, SystemExit) as error:  # it may raise anything
            raise SelectionError(
                f"the selection {self.selection.name} cannot choose {n_parents} of {len(shown)} "
                f"candidates: {told(error)}; 'cultivar operators check' tells what is wrong with it"
            ) from error
        return tuple(sorted(indices, key=lambda index: (-shown[index], index)))


def _distinct(method: str, given: object, n: int, below: int) -> list[int]:
    """Return what user code gave, if it is ``n`` different whole numbers from 0 below a limit.

    Raises:
        ValueError: It is anything else.
    """
    values = list(given) if isinstance(given, Iterable) else []
    found = {int(v) for v in values if not isinstance(v, bool) and isinstance(v, Integral)}
    if len(values) == len(found) == n and all(0 <= value < below for value in found):
        return [int(value) for value in values]
    raise ValueError(
        f"{method} gave {shortened(repr(given))} instead of {n} different whole numbers from 0 to "
        f"{below - 1}"
    )


def fittest_first(fitness: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of all candidates with a fitness, fitter first, ties by index."""
    order = np.argsort(-np.asarray(fitness, dtype=np.float64), kind="stable")  # NaN goes last
    return order[: len(order) - int(np.isnan(fitness).sum())]


@selections.register
class TruncationSelection(Selection):
    """Draw parents evenly from the fittest.

    The ``ceil(share * n)`` fittest of ``n`` candidates are equally likely, the others have no
    chance. Where those are fewer than the parents needed, the next fittest join them.

    Source: Mühlenbein and Schlierkamp-Voosen 1993, "Predictive Models for the Breeder Genetic
    Algorithm", Evolutionary Computation 1(1).

    Args:
        share: Share of the candidates that may become parents, in ``(0, 1]``.

    Raises:
        ValueError: ``share`` is outside ``(0, 1]``.
    """

    name = "truncation"

    def __init__(self, share: float = 0.5) -> None:
        self.share = number("share", share, 0.0, 1.0)
        if self.share == 0:
            raise ValueError("share must be above 0: with 0 nobody can become a parent")

    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        """Return ranks; see :class:`Selection`."""
        eligible = max(math.ceil(self.share * n_candidates), n_parents)
        return [int(rank) for rank in rng.choice(eligible, n_parents, replace=False)]


@selections.register
class TournamentSelection(Selection):
    """Let a few candidates, drawn evenly and without repetition, compete for each parent.

    The fittest of the ``size`` contestants becomes a parent and leaves the pool; the next parent is
    the winner of a new tournament among the others. The fittest of ``n`` wins the first one with
    probability ``size / n``.

    Source: Goldberg and Deb 1991, "A Comparative Analysis of Selection Schemes Used in Genetic
    Algorithms", FOGA 1.

    Args:
        size: Contestants of a tournament, at least 1; 1 draws parents evenly. A pool smaller than
            this competes as a whole.

    Raises:
        ValueError: ``size`` is not a whole number of at least 1.
    """

    name = "tournament"

    def __init__(self, size: int = 3) -> None:
        self.size = whole_number("size", size, low=1)

    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        """Return ranks; see :class:`Selection`."""
        pool = list(range(n_candidates))
        winners = []
        for _ in range(n_parents):
            contestants = rng.choice(len(pool), min(self.size, len(pool)), replace=False)
            winners.append(pool.pop(int(contestants.min())))  # the pool is sorted by rank
        return winners


@selections.register
class RankSelection(Selection):
    """Draw parents with a probability that falls linearly with their rank.

    The candidate of rank ``i`` (0 is the fittest) of ``n`` has the probability
    ``(pressure - 2 * (pressure - 1) * i / (n - 1)) / n``. Further parents are drawn in the same
    proportions among the candidates that are left.

    Source: Baker 1985, "Adaptive Selection Methods for Genetic Algorithms", ICGA 1.

    Args:
        pressure: How much likelier than the average the fittest is drawn, in ``[1, 2]``; 1 draws
            evenly, with 2 the least fit is never drawn.

    Raises:
        ValueError: ``pressure`` is outside ``[1, 2]``.
    """

    name = "rank"

    def __init__(self, pressure: float = 1.5) -> None:
        self.pressure = number("pressure", pressure, 1.0, 2.0)

    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        """Return ranks; see :class:`Selection`."""
        falling = np.linspace(self.pressure, 2 - self.pressure, n_candidates)
        drawn = rng.choice(n_candidates, n_parents, replace=False, p=falling / falling.sum())
        return [int(rank) for rank in drawn]
