from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.bandit import RecipeBandit
from strategies.recipes import Outcome, RecipeDraw, RecipeGrid, RecipeMix


def test_a_mix_draws_in_proportion_to_the_weights() -> None:
    mix, rng = RecipeMix([5, 3, 2]), np.random.default_rng(0)
    drawn = Counter(mix.draw(i, rng) for i in range(5000))
    for recipe, p in enumerate((0.5, 0.3, 0.2)):
        assert drawn[recipe] / 5000 == pytest.approx(p, abs=0.03)  # more than 4 standard errors
    assert mix.shares() == pytest.approx([0.5, 0.3, 0.2])


def test_a_mix_takes_one_number_from_the_stream() -> None:
    # Part of every recorded run: what is drawn after the recipe depends on it.
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    RecipeMix([1, 1, 1]).draw(0, rng)
    other.random()
    assert rng.random() == other.random()


def test_a_grid_takes_all_in_turn_and_nothing_from_the_stream() -> None:
    rng = np.random.default_rng(0)
    grid = RecipeGrid(3)
    assert [grid.draw(i, rng) for i in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert rng.random() == np.random.default_rng(0).random()
    assert grid.shares() == pytest.approx([1 / 3] * 3)


@given(st.integers(1, 9), st.integers(0, 100), st.integers(1, 100))
def test_a_grid_gives_no_recipe_more_than_one_child_more_than_another(
    n: int, start: int, children: int
) -> None:
    grid, rng = RecipeGrid(n), np.random.default_rng(0)
    drawn = Counter(grid.draw(i, rng) for i in range(start, start + children))
    assert max(drawn[i] for i in range(n)) - min(drawn[i] for i in range(n)) <= 1


@pytest.mark.parametrize("draw", [RecipeMix([2]), RecipeGrid(1), RecipeBandit(1)])
def test_one_recipe_is_always_drawn(draw: RecipeDraw) -> None:
    rng = np.random.default_rng(0)
    assert {draw.draw(i, rng) for i in range(20)} == {0}
    assert draw.shares() == pytest.approx([1])


@pytest.mark.parametrize("draw", [RecipeMix([1, 2]), RecipeBandit(2)])
def test_the_draw_depends_on_the_rng_alone(draw: RecipeDraw) -> None:
    sequences = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        sequences.append([draw.draw(0, rng) for _ in range(20)])
    assert sequences[0] == sequences[1]


@pytest.mark.parametrize("draw", [RecipeMix([1, 2]), RecipeGrid(2)])
def test_a_mix_and_a_grid_learn_nothing(draw: RecipeDraw) -> None:
    before = draw.shares()
    draw.learn([Outcome(0, 5.0), Outcome(1, None)])
    assert (draw.shares() == before).all()


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_a_weight_must_be_above_zero_and_finite(weight: float) -> None:
    with pytest.raises(ValueError, match="weight of a recipe must be"):
        RecipeMix([1, weight])


def test_no_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match="a mix needs at least one recipe"):
        RecipeMix([])
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, not 0"):
        RecipeGrid(0)
