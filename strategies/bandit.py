"""A bandit over recipes: those whose children improved on their parents are drawn more often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.checks import number, whole_number
from strategies.recipes import Outcome, RecipeDraw

_STEPS = 1000  # of the integral over the probability of success


class RecipeBandit(RecipeDraw):
    """Discounted Thompson sampling over recipes, one arm each.

    Arm ``k`` has the posterior ``Beta(1 + S_k, 1 + F_k)``. For each child, ``theta_k`` is drawn
    from every posterior and the arm with the largest one is taken; with probability ``explore`` an
    arm drawn evenly is taken instead, so that none is ever given up. After a generation, with
    rewards ``r`` in ``[0, 1]`` as :func:`rewards` gives them::

        S_k <- discount * S_k + sum of r       over the generation's children of arm k
        F_k <- discount * F_k + sum of (1 - r)

    What an arm is worth changes as the population does, hence the discount; it applies to all arms,
    also to those without children.

    What is rewarded is improvement over the better parent, not fitness. The more parents a recipe
    takes, the fitter the fittest of them is on average: recipes of many parents have a higher bar
    to clear than those of one, and children of equal fitness earn the former less. Improvement
    tells what a recipe adds to what was there; compare fitness on the leaderboard for the rest.

    Source: Raj & Kalyani 2017, "Taming Non-stationary Bandits: A Bayesian Approach",
    arXiv:1707.09727. We differ in three ways: a time step is a generation, since all children of
    one are planned before any is scored; rewards are fractions that are credited as they are,
    where Agrawal & Goyal 2012 (arXiv:1111.1797) would toss a coin for 0 or 1; and there is
    ``explore``.

    Attributes:
        successes: Discounted sum of rewards by arm, ``(n,)``.
        failures: Discounted sum of one minus reward by arm, ``(n,)``.

    Args:
        n: Number of recipes.
        discount: Factor on what is known, once per generation, in ``(0, 1]``; 1 forgets nothing.
        explore: Probability of an arm drawn evenly, in ``[0, 1]``.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(self, n: int, discount: float = 0.95, explore: float = 0.1) -> None:
        self.n = whole_number("n", n, 1)
        self.discount = number("discount", discount, 0.0, 1.0)
        if self.discount == 0:
            raise ValueError("discount must be above 0: with 0 a generation would teach nothing")
        self.explore = number("explore", explore, 0.0, 1.0)
        self.successes = np.zeros(self.n)
        self.failures = np.zeros(self.n)

    @property
    def alpha(self) -> NDArray[np.float64]:
        """First parameter of each posterior, ``(n,)``."""
        return 1 + self.successes

    @property
    def beta(self) -> NDArray[np.float64]:
        """Second parameter of each posterior, ``(n,)``."""
        return 1 + self.failures

    @property
    def expected(self) -> NDArray[np.float64]:
        """Expected reward of each arm, the mean of its posterior, ``(n,)``."""
        return self.alpha / (self.alpha + self.beta)

    def draw(self, position: int, rng: np.random.Generator) -> int:
        """Return the number of a recipe; see :class:`RecipeDraw`."""
        if rng.random() < self.explore:
            return int(rng.integers(self.n))
        return int(np.argmax(rng.beta(self.alpha, self.beta)))

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """Credit the arms with the rewards of a generation; see :class:`RecipeDraw`."""
        arms = [outcome.recipe for outcome in outcomes]
        gained = rewards([outcome.improvement for outcome in outcomes])
        self.successes *= self.discount
        self.failures *= self.discount
        np.add.at(self.successes, arms, gained)
        np.add.at(self.failures, arms, 1 - gained)

    def shares(self) -> NDArray[np.float64]:
        """Return how likely each recipe is drawn for the next child, ``(n,)``.

        The probability that an arm's ``theta`` is the largest is the integral of its density times
        the distribution functions of all others, taken here in a thousand steps.
        """
        from scipy.special import betainc  # slow to import, and needed for the table only

        edges = np.linspace(0, 1, _STEPS + 1)
        below = betainc(self.alpha[:, None], self.beta[:, None], edges)  # (n, steps + 1)
        middle = (below[:, 1:] + below[:, :-1]) / 2
        # The product of all others, without a division: those before an arm times those behind it.
        ones = np.ones((1, _STEPS))
        before = np.cumprod(np.concatenate([ones, middle[:-1]]), axis=0)
        behind = np.cumprod(np.concatenate([ones, middle[:0:-1]]), axis=0)[::-1]
        largest = (np.diff(below) * before * behind).sum(axis=1)
        largest /= largest.sum()
        shares: NDArray[np.float64] = (1 - self.explore) * largest + self.explore / self.n
        return shares


def rewards(improvements: Sequence[float | None]) -> NDArray[np.float64]:
    """Return the rewards of one generation's children, in ``[0, 1]``.

    A scored child gets its rank by improvement among the ``m`` scored ones, counted from 0 and
    divided by ``m - 1``: 0 for the worst, 1 for the best, equal ones share the mean of their ranks.
    Ranks rather than improvements, because the size of these differs from task to task and shrinks
    as a run gets on. A single scored child gets 0.5, as all do where all are equal. A child without
    a score gets 0.

    Args:
        improvements: Fitness of each child minus that of the fittest of its own parents, finite;
            None where it was not scored. A child of more parents has to beat a fitter one.
    """
    scored = np.array([value is not None for value in improvements], bool)
    values = np.array([value for value in improvements if value is not None], np.float64)
    gained = np.zeros(len(improvements))
    if len(values) == 1:
        gained[scored] = 0.5
    elif len(values):
        # Mean rank of equals: half of the way between the first and the last of them.
        ordered = np.sort(values)
        first = np.searchsorted(ordered, values, side="left")
        last = np.searchsorted(ordered, values, side="right") - 1
        gained[scored] = (first + last) / 2 / (len(values) - 1)
    return gained
