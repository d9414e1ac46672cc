"""Rewards and posteriors, worked out by hand or with SciPy's ranks and integrals."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from strategies.bandit import RecipeBandit, rewards
from strategies.recipes import Outcome

IMPROVEMENTS = st.lists(st.none() | st.integers(-3, 3).map(float), max_size=12)


@pytest.mark.parametrize(
    ("improvements", "expected"),
    [
        ([], []),
        ([3.0], [0.5]),
        ([None], [0.0]),
        ([2.0, 2.0, 2.0], [0.5, 0.5, 0.5]),
        ([-1.0, 5.0], [0.0, 1.0]),
        ([0.5, -100.0, 0.6], [0.5, 0.0, 1.0]),  # ranks, whatever the size
        # Ranks 0, 1.5, 1.5 and 3 of 4 scored children.
        ([7.0, None, 1.0, 7.0, 9.0], [0.5, 0.0, 0.0, 0.5, 1.0]),
    ],
)
def test_a_reward_is_the_rank_among_the_scored_children(
    improvements: Sequence[float | None], expected: Sequence[float]
) -> None:
    assert rewards(improvements).tolist() == expected


@given(IMPROVEMENTS)
def test_rewards_are_the_scaled_mean_ranks_of_scipy(improvements: list[float | None]) -> None:
    gained = rewards(improvements)
    scored = [value for value in improvements if value is not None]
    assert gained.shape == (len(improvements),)
    assert all(gained[i] == 0 for i, value in enumerate(improvements) if value is None)
    if len(scored) > 1:
        expected = (stats.rankdata(scored) - 1) / (len(scored) - 1)
        found = [gained[i] for i, value in enumerate(improvements) if value is not None]
        assert found == pytest.approx(expected)
        assert np.mean(found) == pytest.approx(0.5)  # the sum of all ranks is fixed


def test_a_posterior_counts_discounted_rewards() -> None:
    bandit = RecipeBandit(3, discount=0.5)
    assert bandit.alpha.tolist() == bandit.beta.tolist() == [1, 1, 1]
    # Rewards 1, 0.5 and 0; the fourth child was not scored.
    bandit.learn([Outcome(0, 9.0), Outcome(0, 5.0), Outcome(1, 1.0), Outcome(1, None)])
    assert bandit.alpha.tolist() == [2.5, 1, 1]
    assert bandit.beta.tolist() == [1.5, 3, 1]
    bandit.learn([Outcome(2, 4.0)])  # reward 0.5; all others are discounted
    assert bandit.alpha.tolist() == [1 + 0.5 * 1.5, 1, 1.5]
    assert bandit.beta.tolist() == [1 + 0.5 * 0.5, 2, 1.5]
    assert bandit.expected == pytest.approx([1.75 / 3, 1 / 3, 0.5])


def test_a_generation_whose_children_are_all_equal_tells_arms_apart_by_nothing() -> None:
    bandit = RecipeBandit(2)
    bandit.learn([Outcome(0, 0.0), Outcome(0, 0.0), Outcome(1, 0.0)])
    assert bandit.expected.tolist() == [0.5, 0.5]
    assert bandit.alpha.tolist() == [2.0, 1.5]


def test_without_discount_nothing_is_forgotten() -> None:
    bandit = RecipeBandit(2, discount=1)
    for _ in range(10):
        bandit.learn([Outcome(0, 1.0), Outcome(1, 0.0)])
    assert (bandit.alpha.tolist(), bandit.beta.tolist()) == ([11, 1], [1, 11])


def test_an_arm_that_is_never_drawn_goes_back_to_not_being_known() -> None:
    bandit = RecipeBandit(2, discount=0.5)
    bandit.learn([Outcome(0, 1.0), Outcome(1, 0.0)])
    for _ in range(60):
        bandit.learn([Outcome(0, 0.0)])
    assert bandit.beta[1] == pytest.approx(1)


def test_the_arm_with_the_largest_draw_from_its_posterior_is_taken() -> None:
    bandit = RecipeBandit(3, explore=0)
    bandit.learn([Outcome(0, 1.0), Outcome(1, 3.0), Outcome(2, 2.0), Outcome(1, 4.0)])
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(50):
        other.random()  # whether to explore
        drawn = [other.beta(a, b) for a, b in zip(bandit.alpha, bandit.beta, strict=True)]
        assert bandit.draw(0, rng) == int(np.argmax(drawn))


def test_arms_that_win_are_drawn_as_often_as_the_shares_say() -> None:
    bandit, rng = RecipeBandit(3, explore=0.3), np.random.default_rng(0)
    bandit.learn([Outcome(i, value) for i, value in ((0, 9.0), (1, 5.0), (2, 1.0), (2, 2.0))])
    drawn = Counter(bandit.draw(i, rng) for i in range(5000))
    for arm, share in enumerate(bandit.shares()):
        assert drawn[arm] / 5000 == pytest.approx(share, abs=0.03)  # more than 4 standard errors


def test_with_nothing_but_exploration_all_arms_are_equal() -> None:
    bandit, rng = RecipeBandit(4, explore=1), np.random.default_rng(0)
    for _ in range(20):
        bandit.learn([Outcome(0, 9.0), *(Outcome(arm, 0.0) for arm in (1, 2, 3))])
    assert bandit.shares() == pytest.approx([0.25] * 4)
    drawn = Counter(bandit.draw(i, rng) for i in range(2000))
    assert all(abs(drawn[arm] - 500) < 4 * np.sqrt(2000 * 3 / 16) for arm in range(4))


def test_the_share_of_one_of_two_arms_is_the_mean_of_its_posterior_against_a_uniform_one() -> None:
    # P(theta_0 > theta_1) with theta_1 uniform is E[theta_0] = alpha / (alpha + beta).
    bandit = RecipeBandit(2, explore=0)
    bandit.successes[0] = 1.0
    assert bandit.shares() == pytest.approx([2 / 3, 1 / 3], abs=1e-5)


@pytest.mark.parametrize("scale", [1, 30, 3000])
def test_shares_are_the_integrals_of_winning(scale: float) -> None:
    bandit = RecipeBandit(4, explore=0)
    bandit.successes = np.array([0.4, 0.5, 0.2, 0.0]) * scale
    bandit.failures = np.array([0.6, 0.6, 0.2, 0.5]) * scale
    posteriors = [stats.beta(a, b) for a, b in zip(bandit.alpha, bandit.beta, strict=True)]
    expected = []
    for arm, mine in enumerate(posteriors):
        others = [p for i, p in enumerate(posteriors) if i != arm]

        def wins(x: float, mine=mine, others=others) -> float:
            return float(mine.pdf(x) * np.prod([other.cdf(x) for other in others]))

        expected.append(integrate.quad(wins, 0, 1, points=[0.4, 0.45, 0.5], limit=500)[0])
    assert sum(expected) == pytest.approx(1, abs=1e-6)
    assert bandit.shares() == pytest.approx(expected, abs=2e-3)


def test_a_bandit_prefers_the_better_arm_and_follows_a_change() -> None:
    bandit, rng = RecipeBandit(3, discount=0.8, explore=0.05), np.random.default_rng(1)

    def live(values: Sequence[float], generations: int) -> list[int]:
        arms: list[int] = []
        for _ in range(generations):
            arms = [bandit.draw(0, rng) for _ in range(30)]
            bandit.learn([Outcome(arm, rng.normal(values[arm], 1)) for arm in arms])
        return arms

    before = Counter(live([0, 2, 0], 15))
    assert before[1] > 15
    after = Counter(live([2, 0, 0], 25))
    assert after[0] > 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be a whole number of at least 1, not 0"),
        ({"n": 2, "discount": 0}, "discount must be above 0"),
        ({"n": 2, "discount": 1.5}, r"discount must be a number in \[0, 1\], not 1\.5"),
        ({"n": 2, "explore": -0.1}, r"explore must be a number in \[0, 1\], not -0\.1"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecipeBandit(**arguments)


def test_drawing_and_learning_need_no_scipy() -> None:
    code = (
        "import sys, numpy as np\n"
        "from strategies import RecipeBandit, Outcome\n"
        "bandit = RecipeBandit(2)\n"
        "bandit.learn([Outcome(bandit.draw(0, np.random.default_rng(0)), 1.0)])\n"
        "assert 'scipy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
