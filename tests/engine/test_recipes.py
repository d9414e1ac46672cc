"""What children are made with, against the ranges and formulas of the settings."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.config import FineTuneConfig, ImitationConfig, RunConfig
from engine.errors import ConfigError
from engine.recipes import (
    ConfiguredRecipes,
    RunSeeds,
    ancestor_plan,
    draw_finetune,
    draw_teacher_weights,
    make_selection,
    student_plans,
)
from populations.plans import FineTune

INHERITED = FineTune("teachers", 1, 1e-3, 1.0, 0.0, (0.5, 0.3, 0.2))


def make_config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate(sections)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- training of a child -----------------------------------------------------------------------


@given(
    st.sampled_from(["inherit", "uniform", "random"]),
    st.one_of(st.floats(0, 5), st.just(1e6)),
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.integers(0),
)
def test_teacher_weights_are_positive_and_sum_to_one(
    how: Any, noise: float, inherited: list[float], seed: int
) -> None:
    settings = FineTuneConfig(teacher_weights=how, teacher_noise=noise)
    weights = draw_teacher_weights(settings, tuple(inherited), len(inherited), rng(seed))
    assert len(weights) == len(inherited)
    assert sum(weights) == pytest.approx(1)
    assert all(0 <= weight <= 1 for weight in weights)


def test_uniform_teacher_weights_are_equal() -> None:
    settings = FineTuneConfig(teacher_weights="uniform")
    assert draw_teacher_weights(settings, (1.0, 0, 0, 0), 4, rng()) == (0.25,) * 4


def test_random_teacher_weights_ignore_the_parent_and_are_even_on_the_simplex() -> None:
    settings = FineTuneConfig(teacher_weights="random")
    generator = rng()
    draws = np.array([draw_teacher_weights(settings, (1.0, 0), 2, generator) for _ in range(500)])
    assert stats.kstest(draws[:, 0], "uniform").pvalue > 0.001


def test_inherited_teacher_weights_without_noise_are_those_of_the_parent_plus_a_hundredth() -> None:
    settings = FineTuneConfig(teacher_weights="inherit", teacher_noise=0.0)
    weights = draw_teacher_weights(settings, (1.0, 0.0), 2, rng())
    assert weights == pytest.approx((1.01 / 1.02, 0.01 / 1.02))


def test_noise_on_inherited_teacher_weights_is_log_normal() -> None:
    settings = FineTuneConfig(teacher_weights="inherit", teacher_noise=0.3)
    generator = rng()
    draws = np.array([draw_teacher_weights(settings, (0.6, 0.4), 2, generator) for _ in range(500)])
    # The log of the ratio of two log-normal numbers is normal with sqrt(2) of the deviation.
    ratio = np.log(draws[:, 0] / draws[:, 1]) - np.log(0.61 / 0.41)
    assert stats.kstest(ratio / (0.3 * math.sqrt(2)), "norm").pvalue > 0.001


@given(st.floats(1e-6, 1), st.floats(1, 1e3), st.integers(0))
def test_draws_stay_within_their_ranges(low: float, factor: float, seed: int) -> None:
    settings = ImitationConfig(
        learning_rate=(low, low * factor),
        temperature=(2.0, 2.0 * factor),
        hard_weight=0.25,
        steps=9,
    )
    drawn = draw_finetune(settings, "teachers", (1.0,), False, rng(seed))
    assert low * (1 - 1e-9) <= drawn.learning_rate <= low * factor * (1 + 1e-9)
    assert 2 * (1 - 1e-9) <= drawn.temperature <= 2 * factor * (1 + 1e-9)
    assert (drawn.steps, drawn.hard_weight, drawn.repair) == (9, 0.25, False)
    assert (drawn.target, drawn.teacher_weights) == ("teachers", (1.0,))


def test_draws_are_log_uniform() -> None:
    settings = ImitationConfig(learning_rate=(1e-4, 1e-2), temperature=(0.5, 8))
    generator = rng()
    drawn = [draw_finetune(settings, "none", (1.0,), True, generator) for _ in range(500)]
    for values, low, high in (
        ([f.learning_rate for f in drawn], 1e-4, 1e-2),
        ([f.temperature for f in drawn], 0.5, 8),
    ):
        position = (np.log(values) - np.log(low)) / (np.log(high) - np.log(low))
        assert stats.kstest(position, "uniform").pvalue > 0.001


def test_the_training_of_a_child_follows_the_settings_and_its_fitter_parent() -> None:
    config = make_config(
        finetune={"target": "better_parent", "repair": False, "steps": 17, "teacher_noise": 0.0}
    )
    other = FineTune("none", 2, 1.0, 1.0, 1.0, (0.0, 0.0, 1.0))
    drawn = ConfiguredRecipes(config, 3).finetune([INHERITED, other], rng())
    assert (drawn.target, drawn.repair, drawn.steps) == ("better_parent", False, 17)
    expected = np.array([0.51, 0.31, 0.21])
    assert drawn.teacher_weights == pytest.approx(expected / expected.sum())


def test_equal_streams_draw_equal_recipes() -> None:
    recipes = ConfiguredRecipes(make_config(), 3)

    def draw(seed: int) -> tuple[Any, ...]:
        generator = rng(seed)
        recipe = recipes.draw(generator)
        return recipe.operator.name, recipes.finetune([INHERITED], generator)

    assert [draw(seed) for seed in range(20)] == [draw(seed) for seed in range(20)]
    assert len({draw(seed) for seed in range(20)}) == 20


# --- operators, mutation and selection ---------------------------------------------------------


def test_recipes_are_drawn_in_proportion_to_their_weights() -> None:
    config = make_config(
        evolution={
            "recipes": [
                {"operator": "weighted", "params": {"low": 0.5, "high": 0.5}, "weight": 3},
                {"operator": "clone", "align": "none"},
            ]
        }
    )
    recipes = ConfiguredRecipes(config, 2)
    generator = rng()
    drawn = [recipes.draw(generator) for _ in range(1000)]
    weighted = [recipe for recipe in drawn if recipe.operator.name == "weighted"]
    # 750 expected, standard deviation sqrt(1000 * 3/4 * 1/4) = 13.7
    assert abs(len(weighted) - 750) < 4 * 13.7
    assert weighted[0].operator.params == {"low": 0.5, "high": 0.5}
    assert (weighted[0].n_parents, weighted[0].align) == (2, "auto")
    clone = next(recipe for recipe in drawn if recipe.operator.name == "clone")
    assert (clone.n_parents, clone.align) == (1, "none")
    assert clone.mutation is not None
    assert clone.mutation.name == "gaussian"


def test_mutation_can_be_switched_off() -> None:
    recipes = ConfiguredRecipes(make_config(evolution={"mutation": None}), 2)
    assert recipes.draw(rng()).mutation is None


def test_controls_are_a_clone_and_a_fresh_network_without_mutation() -> None:
    clone, fresh = ConfiguredRecipes(make_config(), 2).controls()
    assert (clone.operator.name, clone.n_parents) == ("clone", 1)
    assert (fresh.operator.name, fresh.n_parents) == ("fresh", 0)
    for control in (clone, fresh):
        assert (control.align, control.mutation) == ("none", None)


@pytest.mark.parametrize(
    ("evolution", "message"),
    [
        (
            {"recipes": [{"operator": "layer"}, {"operator": "weigthed"}]},
            r"evolution\.recipes\.1: no crossover named 'weigthed'\. Did you mean 'weighted'\?",
        ),
        (
            {"recipes": [{"operator": "weighted", "params": {"lwo": 0.1}}]},
            r"evolution\.recipes\.0: .*no parameter 'lwo'\. Did you mean 'low'\?",
        ),
        (
            {"recipes": [{"operator": "weighted", "params": {"low": 0.9, "high": 0.1}}]},
            r"evolution\.recipes\.0: .*low \(0\.9\) must not be above high",
        ),
        (
            {"mutation": {"name": "gausian"}},
            r"evolution\.mutation: no mutation named 'gausian'\. Did you mean 'gaussian'\?",
        ),
        (
            {"mutation": {"params": {"share": 2}}},
            r"evolution\.mutation: .*share must be a number in \[0, 1\], not 2",
        ),
    ],
)
def test_a_mistyped_operator_or_mutation_is_named_with_a_suggestion(
    evolution: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ConfiguredRecipes(make_config(evolution=evolution), 2)


def test_selection_is_made_with_its_parameters() -> None:
    config = make_config(evolution={"selection": {"name": "tournament", "params": {"size": 5}}})
    selection = make_selection(config)
    assert (selection.name, selection.params) == ("tournament", {"size": 5})


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"name": "turnament"}, "no selection named 'turnament'. Did you mean 'tournament'?"),
        ({"params": {"size": 0}}, "size must be a whole number of at least 1, not 0"),
    ],
)
def test_a_mistyped_selection_is_named_with_a_suggestion(
    selection: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_selection(make_config(evolution={"selection": selection}))
    assert str(caught.value).startswith("evolution.selection: ")
    assert message in str(caught.value)


# --- founders ----------------------------------------------------------------------------------


def test_each_student_imitates_one_teacher_in_turn() -> None:
    config = make_config(distillation={"students": 5, "steps": 33, "learning_rate": [0.1, 0.1]})
    plans = student_plans(config, 2, None)
    assert [plan.finetune.teacher_weights for plan in plans] == [
        *[(1.0, 0.0), (0.0, 1.0)] * 2,
        (1.0, 0.0),
    ]
    for index, plan in enumerate(plans):
        assert (plan.kind, plan.phase, plan.generation, plan.index) == (
            *("student", "students"),
            *(0, index),
        )
        assert (plan.operator.name, plan.parents, plan.mutation) == ("fresh", (), None)
        assert (plan.finetune.steps, plan.finetune.target) == (33, "teachers")
        assert plan.finetune.repair
        assert plan.finetune.learning_rate == pytest.approx(0.1)
    assert len({plan.seed for plan in plans}) == 5
    assert len({plan.finetune.temperature for plan in plans}) == 5


def test_students_of_an_ancestor_are_its_clones() -> None:
    for plan in student_plans(make_config(), 2, "abc"):
        assert (plan.operator.name, plan.parents, len(plan.fitness)) == ("clone", ("abc",), 1)


def test_students_do_not_depend_on_how_many_there_are() -> None:
    few, many = (student_plans(make_config(distillation={"students": n}), 3, None) for n in (4, 9))
    for one, other in zip(few, many, strict=False):
        assert (one.seed, one.finetune) == (other.seed, other.finetune)


def test_the_ancestor_imitates_the_mean_of_the_teachers() -> None:
    plan = ancestor_plan(make_config(distillation={"ancestor_steps": 77}), 4)
    assert (plan.kind, plan.phase, plan.index) == ("ancestor", "ancestor", 0)
    assert plan.finetune.teacher_weights == (0.25,) * 4
    assert plan.finetune.steps == 77
    assert plan.operator.name == "fresh"
    assert plan.seed != student_plans(make_config(), 4, None)[0].seed


def test_founders_depend_on_the_run_seed() -> None:
    first, second = (student_plans(make_config(seed=seed), 2, None)[0] for seed in (0, 1))
    assert first.seed != second.seed
    assert first.finetune != second.finetune


def test_streams_of_a_run_differ_by_generation_and_child() -> None:
    seeds = RunSeeds(7)
    births = {seeds.birth(g, i) for g in range(5) for i in range(5)}
    draws = {float(seeds.selection(g, i).random()) for g in range(5) for i in range(5)}
    assert len(births) == len(draws) == 25
    assert RunSeeds(8).birth(0, 0) not in births
    assert seeds.selection(1, 2).random() == RunSeeds(7).selection(1, 2).random()
