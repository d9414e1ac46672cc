"""Which recipe makes the next child: one drawn by weight, or all of them in turn.

A recipe is known by its number here; what stands behind a number is the caller's. A third way to
draw, which learns from the children, has a file of its own: ``strategies/bandit.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from strategies.checks import number, whole_number


class Outcome(NamedTuple):
    """What became of one child.

    Attributes:
        recipe: Number of the recipe that it was made with.
        improvement: Its fitness minus that of its better parent, whatever the number of parents;
            None where it was not scored.
    """

    recipe: int
    improvement: float | None


class RecipeDraw(ABC):
    """Draws a recipe for each child.

    Attributes:
        n: Number of recipes.
    """

    n: int

    @abstractmethod
    def draw(self, position: int, rng: np.random.Generator) -> int:
        """Return the number of a recipe, below :attr:`n`.

        Args:
            position: Number of children of the run before this one, controls not counted.
            rng: Random stream of this child, the only source of randomness.
        """

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """Take in what became of the children of a generation; by default, learn nothing.

        Args:
            outcomes: One per child that counts, in the order of the children.
        """
        del outcomes

    @abstractmethod
    def shares(self) -> NDArray[np.float64]:
        """Return how likely each recipe is drawn for the next child, ``(n,)``, summing to one."""


class RecipeMix(RecipeDraw):
    """Draw each recipe with probability ``weight / sum of all weights``.

    Args:
        weights: Weight of each recipe.

    Raises:
        ValueError: There is no recipe, or a weight is not a finite number above 0.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        if not weights:
            raise ValueError("a mix needs at least one recipe")
        for weight in weights:
            if number("weight of a recipe", weight, low=0.0) == 0:
                raise ValueError("weight of a recipe must be above 0")
        self.n = len(weights)
        self._upto = np.cumsum(weights)

    def draw(self, position: int, rng: np.random.Generator) -> int:
        """Return the number of a recipe, from one random number; see :class:`RecipeDraw`."""
        place = rng.random() * self._upto[-1]
        index = int(np.searchsorted(self._upto, place, side="right"))
        return min(index, self.n - 1)  # rounding may reach the very end

    def shares(self) -> NDArray[np.float64]:
        """Return the probabilities, ``(n,)``."""
        shares: NDArray[np.float64] = np.diff(self._upto, prepend=0.0) / self._upto[-1]
        return shares


class RecipeGrid(RecipeDraw):
    """Take all recipes in turn, without randomness, so that none gets more children than another.

    The turn goes on from generation to generation: also where recipes outnumber the children of a
    generation, each recipe gets its share.

    Args:
        n: Number of recipes.

    Raises:
        ValueError: ``n`` is not a whole number of at least 1.
    """

    def __init__(self, n: int) -> None:
        self.n = whole_number("n", n, 1)

    def draw(self, position: int, rng: np.random.Generator) -> int:
        """Return ``position`` modulo the number of recipes; see :class:`RecipeDraw`."""
        return position % self.n

    def shares(self) -> NDArray[np.float64]:
        """Return equal shares, ``(n,)``."""
        return np.full(self.n, 1 / self.n)
