from __future__ import annotations

import math

import numpy as np
import pytest

from engine.stages.search.scores import Score, agreement_score

A = np.array([0, 0, 1, 1, 2, 2, 3, 3])
B = np.array([0, 1, 1, 0, 2, 3, 3, 2])
CHILD = np.array([0, 0, 1, 1, 2, 3, 3, 0])  # as A in 6 states of 8, as B in 5


def test_the_score_is_the_agreement_with_the_parent_it_agrees_with_less() -> None:
    assert agreement_score(CHILD, A, B).value == 5 / 8
    assert agreement_score(CHILD, B, A).value == 5 / 8
    assert agreement_score(A, A, B).value == 4 / 8


def test_the_gain_is_what_it_is_above_the_parents_agreement() -> None:
    assert agreement_score(CHILD, A, B, is_gain=True).value == pytest.approx(5 / 8 - 4 / 8)
    assert agreement_score(A, A, B, is_gain=True).value == 0


def test_the_standard_error_is_that_of_a_mean() -> None:
    score = agreement_score(CHILD, A, B)
    # of a share p of n draws, with the unbiased variance: sqrt(p (1 - p) / (n - 1))
    assert score.standard_error == pytest.approx(math.sqrt(5 / 8 * 3 / 8 / 7))
    assert math.isnan(Score(np.array([1.0])).standard_error)


def test_equal_scores_are_within_noise_and_far_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(size=400)
    first = Score(luck)
    assert first.is_within_noise_of(Score(luck.copy()))
    # paired: the luck that both share does not hide a small difference
    assert not first.is_within_noise_of(Score(luck + 0.01))
    assert first.is_within_noise_of(Score(rng.normal(size=400)))
    assert not first.is_within_noise_of(Score(rng.normal(size=400) + 1))
