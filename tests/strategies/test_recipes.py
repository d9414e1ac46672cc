from __future__ import annotations

import math

import numpy as np
import pytest

from strategies.crossover import CloneCrossover, LayerCrossover, WeightedCrossover
from strategies.recipes import Recipe, RecipeMix


def test_recipes_are_drawn_in_proportion_to_their_weights() -> None:
    recipes = [
        Recipe(WeightedCrossover(), weight=5),
        Recipe(LayerCrossover(), "weights", weight=3),
        Recipe(CloneCrossover(), "none", weight=2),
    ]
    mix, rng = RecipeMix(recipes), np.random.default_rng(0)
    drawn = [mix.draw(rng) for _ in range(5000)]
    for recipe, p in zip(recipes, (0.5, 0.3, 0.2), strict=True):
        found = sum(each is recipe for each in drawn) / 5000
        assert found == pytest.approx(p, abs=0.03)  # more than 4 standard errors


def test_one_recipe_is_always_drawn() -> None:
    recipe = Recipe(WeightedCrossover())
    assert RecipeMix([recipe]).draw(np.random.default_rng(0)) is recipe


def test_the_draw_depends_on_the_rng_alone() -> None:
    mix = RecipeMix([Recipe(WeightedCrossover()), Recipe(CloneCrossover())])
    sequences = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        sequences.append([mix.draw(rng) for _ in range(20)])
    assert sequences[0] == sequences[1]


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_a_weight_must_be_above_zero_and_finite(weight: float) -> None:
    with pytest.raises(ValueError, match="weight of the recipe 'weighted' must be"):
        Recipe(WeightedCrossover(), weight=weight)


def test_an_empty_mix_is_refused() -> None:
    with pytest.raises(ValueError, match="a mix needs at least one recipe"):
        RecipeMix([])
