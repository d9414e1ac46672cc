"""How networks are trained, against the ranges and formulas of the settings."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.config import FineTuneConfig, ImitationConfig
from engine.finetune_draws import draw_child_finetune, draw_finetune, draw_teacher_weights
from populations.plans import FineTune

PARENT = FineTune("none", 2, 4e-3, 1.0, 1.0, (0.5, 0.3, 0.2))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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
    drawn = draw_finetune(settings, (1.0,), rng(seed))
    assert low * (1 - 1e-9) <= drawn.learning_rate <= low * factor * (1 + 1e-9)
    assert 2 * (1 - 1e-9) <= drawn.temperature <= 2 * factor * (1 + 1e-9)
    assert (drawn.steps, drawn.hard_weight, drawn.repair) == (9, 0.25, True)
    assert (drawn.target, drawn.teacher_weights) == ("teachers", (1.0,))


def test_draws_are_log_uniform() -> None:
    settings = ImitationConfig(learning_rate=(1e-4, 1e-2), temperature=(0.5, 8))
    generator = rng()
    drawn = [draw_finetune(settings, (1.0,), generator) for _ in range(500)]
    for values, low, high in (
        ([f.learning_rate for f in drawn], 1e-4, 1e-2),
        ([f.temperature for f in drawn], 0.5, 8),
    ):
        position = (np.log(values) - np.log(low)) / (np.log(high) - np.log(low))
        assert stats.kstest(position, "uniform").pvalue > 0.001


# --- inheritance -------------------------------------------------------------------------------


def child_of(parent: FineTune, seed: int = 0, **settings: Any) -> FineTune:
    return draw_child_finetune(FineTuneConfig(**settings), parent, 3, rng(seed))


def test_the_training_of_a_child_follows_the_settings_and_the_teacher_weights_of_the_parent() -> (
    None
):
    drawn = child_of(PARENT, target="better_parent", repair=False, steps=17, teacher_noise=0.0)
    assert (drawn.target, drawn.repair, drawn.steps) == ("better_parent", False, 17)
    expected = np.array([0.51, 0.31, 0.21])
    assert drawn.teacher_weights == pytest.approx(expected / expected.sum())


def test_without_inheritance_a_child_takes_the_numbers_of_its_stream_as_a_student_does() -> None:
    # Part of every recorded run: the settings of inheritance must not cost a random number.
    generator = rng(3)
    generator.normal(0, 0.3, 3)  # noise on the teacher weights
    expected = draw_finetune(FineTuneConfig(), (1.0,), generator)
    drawn = child_of(PARENT, seed=3, perturb=[3.0], resample=0.9)
    assert (drawn.learning_rate, drawn.temperature) == (
        expected.learning_rate,
        expected.temperature,
    )


def test_an_inherited_number_is_the_parents_times_one_of_the_factors() -> None:
    drawn = [
        child_of(PARENT, seed, inherit=["learning_rate"], perturb=[0.5, 1, 2], resample=0)
        for seed in range(600)
    ]
    factors = [round(d.learning_rate / PARENT.learning_rate, 9) for d in drawn]
    for factor in (0.5, 1, 2):
        # 200 of 600 expected, standard deviation sqrt(600 * 1/3 * 2/3) = 11.5
        assert abs(factors.count(factor) - 200) < 4 * 11.5
    # What is not named is drawn as ever.
    position = np.log([d.temperature for d in drawn]) / np.log(2)
    assert stats.kstest(position, stats.uniform(-1, 2).cdf).pvalue > 0.001


def test_an_inherited_number_is_drawn_anew_with_the_probability_of_resampling() -> None:
    settings = {"inherit": ["temperature", "learning_rate"], "perturb": [1.0], "resample": 0.25}
    drawn = [child_of(PARENT, seed, **settings) for seed in range(800)]
    for name in ("learning_rate", "temperature"):
        values = [getattr(d, name) for d in drawn]
        anew = [value for value in values if value != getattr(PARENT, name)]
        # 200 of 800 expected, standard deviation sqrt(800 * 1/4 * 3/4) = 12.2
        assert abs(len(anew) - 200) < 4 * 12.2
    assert child_of(PARENT, inherit=["learning_rate"], resample=1).learning_rate != 4e-3


@given(st.floats(1e-6, 10), st.floats(0.1, 10), st.integers(0, 99))
def test_an_inherited_number_stays_within_its_range(
    inherited: float, factor: float, seed: int
) -> None:
    parent = FineTune("teachers", 2, inherited, 1.0, 1.0, (1.0,) * 3)
    settings = {"learning_rate": (1e-3, 1e-2), "inherit": ["learning_rate"], "perturb": [factor]}
    found = child_of(parent, seed, **settings, resample=0).learning_rate
    assert found == pytest.approx(min(max(inherited * factor, 1e-3), 1e-2))
    assert 1e-3 <= found <= 1e-2
