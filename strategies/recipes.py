"""Recipes: which operator, with which alignment, makes the next child."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from populations.plans import Align
from strategies.checks import number
from strategies.operator import CrossoverOperator


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to make a child.

    Attributes:
        operator: The crossover operator.
        align: How the other parents are aligned to the first one.
        weight: How often it is drawn, relative to the other recipes of a mix.

    Raises:
        ValueError: The weight is not a finite number above 0.
    """

    operator: CrossoverOperator
    align: Align = "auto"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that cannot be a share."""
        if number(f"weight of the recipe {self.operator.name!r}", self.weight, low=0.0) == 0:
            raise ValueError(f"weight of the recipe {self.operator.name!r} must be above 0")


class RecipeMix:
    """A fixed mix of recipes, each drawn with probability ``weight / sum of all weights``.

    Attributes:
        recipes: The recipes, in the order of the configuration.

    Raises:
        ValueError: There is no recipe.
    """

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        if not recipes:
            raise ValueError("a mix needs at least one recipe")
        self.recipes = tuple(recipes)
        self._upto = np.cumsum([recipe.weight for recipe in self.recipes])

    def draw(self, rng: np.random.Generator) -> Recipe:
        """Return the recipe of one child, from one random number."""
        position = rng.random() * self._upto[-1]
        index = int(np.searchsorted(self._upto, position, side="right"))
        return self.recipes[min(index, len(self.recipes) - 1)]  # rounding may reach the very end
