"""The grids are the documented ones, in the documented order."""

from __future__ import annotations

import pytest

from engine.errors import StageError
from engine.stages.search.space import Regime, search_space


@pytest.mark.parametrize(
    ("name", "n_recipes", "regimes"),
    [
        ("minimal", 3, ["short", "medium", "long"]),
        ("default", 7, ["short", "long"]),
        ("default-qat", 7, ["short", "long", "short_qat"]),
        ("minimal-qat", 3, ["short", "short_qat", "long"]),
    ],
)
def test_a_grid_has_the_documented_recipes_and_regimes(name, n_recipes, regimes) -> None:
    space = search_space(name)
    assert len(space.recipes) == n_recipes
    assert [regime.name for regime in space.regimes] == regimes
    assert len(space.trials()) == n_recipes * len(regimes)


def test_children_of_one_recipe_come_one_after_the_other() -> None:
    assert [trial.child_id for trial in search_space("minimal").trials()] == [
        "000_random_a0p50_s0_short",
        "001_random_a0p50_s0_medium",
        "002_random_a0p50_s0_long",
        "003_layer_a0p50_sNone_short",
        "004_layer_a0p50_sNone_medium",
        "005_layer_a0p50_sNone_long",
        "006_weighted_a0p50_sNone_short",
        "007_weighted_a0p50_sNone_medium",
        "008_weighted_a0p50_sNone_long",
    ]


def test_regimes_have_the_documented_numbers() -> None:
    regimes = {regime.name: regime for regime in search_space("default-qat").regimes}
    assert (regimes["short"].epochs, regimes["short"].lr) == (5, 1e-3)
    assert (regimes["long"].epochs, regimes["long"].lr) == (20, 1e-4)
    qat = regimes["short_qat"]
    assert (qat.epochs, qat.lr, qat.batch_size, qat.is_quantized) == (5, 1e-4, 16, True)
    assert {regime.seed for regime in regimes.values()} == {42}


def test_at_most_max_runs_children_of_the_first_recipes_are_tried() -> None:
    assert [t.child_id for t in search_space("default", max_runs=3).trials()] == [
        "000_random_a0p50_s0_short",
        "001_random_a0p50_s0_long",
        "002_random_a0p50_s1_short",
    ]


def test_a_custom_grid_is_a_product_without_settings_that_change_nothing() -> None:
    space = search_space(
        "custom", alphas=[0.25, 0.75], seeds=[5], regimes=["lr_high"], modes=["layer", "random"]
    )
    assert [trial.child_id for trial in space.trials()] == [
        "000_layer_a0p50_sNone_lr_high",
        "001_random_a0p25_s5_lr_high",
        "002_random_a0p75_s5_lr_high",
    ]
    # by default: 3 seeds x 3 alphas of random, 1 of layer, 3 alphas of weighted; 2 regimes
    assert len(search_space("custom").trials()) == (9 + 1 + 3) * 2


def test_a_shifted_grid_draws_anew_and_has_the_same_children_otherwise() -> None:
    shifted = search_space("minimal").shifted(3)
    assert [recipe.seed for recipe in shifted.recipes] == [3, None, None]
    assert {regime.seed for regime in shifted.regimes} == {45}


def test_a_regime_survives_its_record() -> None:
    regime = search_space("minimal-qat").regimes[1]
    assert Regime.from_dict(regime.to_dict()) == regime


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "large"}, "--search-space: expected one of default, minimal, .*, not 'large'"),
        ({"name": "minimal", "max_runs": 0}, "--max-runs must be at least 1, not 0"),
        ({"name": "minimal", "alphas": [0.5]}, "--alpha-values is for --search-space custom"),
        ({"name": "custom", "modes": ["slerp"]}, "--crossover-modes: expected .*, not 'slerp'"),
        ({"name": "custom", "alphas": [1.5]}, r"--alpha-values must be in \[0, 1\], not 1.5"),
        ({"name": "custom", "alphas": [float("nan")]}, "--alpha-values must be in"),
        ({"name": "custom", "seeds": [-1]}, "--crossover-seeds must be at least 0, not -1"),
        ({"name": "custom", "regimes": ["longer"]}, "--finetune-regimes: .*, not 'longer'"),
    ],
)
def test_what_no_grid_can_be_is_refused(arguments, message) -> None:
    with pytest.raises(StageError, match=message):
        search_space(**arguments)
