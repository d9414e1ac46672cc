"""Returns of roles: expected ones come from a loop over gymnasium's scalar environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from scipy import stats

from engine.errors import StageError, TaskError
from engine.seeding import Purpose, episode_seeds, key
from engine.stages.networks import Network, initial_weights, student_spec, teacher_spec
from engine.stages.validation.returns import MeanOfNetworks, bootstrap_interval, play_roles
from populations.network import NetworkSpec

TEACHER = teacher_spec(4, 2, 32)
STUDENT = student_spec(TEACHER)
LINEAR = NetworkSpec((4,), (), 2)


def network(spec: NetworkSpec, seed: int) -> Network:
    return Network(spec, initial_weights(spec, seed))


def balancer() -> Network:
    weight = np.array([[0, 0, 0, 0], [0.1, 0.5, 1, 1]], np.float32)
    return Network(LINEAR, {"network.0.weight": weight, "network.0.bias": np.zeros(2, np.float32)})


def naive_returns(members: list[Network], seeds: tuple[int, ...]) -> list[float]:
    """Play the mean Q-value of some networks, one state after the other."""
    env = gymnasium.make("CartPole-v1")
    returns = []
    for seed in seeds:
        state, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            q = np.mean([member.q_values(state[None])[0] for member in members], axis=0)
            state, reward, terminated, truncated, _ = env.step(int(q.argmax()))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return returns


def test_roles_of_any_width_play_the_same_episodes_as_a_naive_loop() -> None:
    roles = {"parent_A": network(TEACHER, 0), "child": network(STUDENT, 5), "best": balancer()}
    report = play_roles(roles, "CartPole-v1", 6, seed=3, ensemble=("parent_A", "child"))
    seeds = episode_seeds(key(3, Purpose.RETURNS), 6)
    expected = {name: naive_returns([role], seeds) for name, role in roles.items()}
    expected["ensemble"] = naive_returns([roles["parent_A"], roles["child"]], seeds)
    assert list(report["roles"]) == list(expected)
    for name, returns in expected.items():
        played = report["roles"][name]
        assert played["mean"] == pytest.approx(np.mean(returns))
        assert played["sem"] == pytest.approx(stats.sem(returns))
        assert (played["min"], played["max"]) == (min(returns), max(returns))
        assert played["episodes"] == 6
        assert played["full_length_share"] == np.mean(np.array(returns) == 500)
        low, high = played["ci95"]
        assert min(returns) <= low <= played["mean"] <= high <= max(returns)
    assert report["roles"]["best"]["ci95"] == [500, 500]
    assert report["roles"]["ensemble"]["members"] == ["parent_A", "child"]
    assert report["environment"] == "CartPole-v1"
    assert report["max_episode_steps"] == 500


def test_same_seed_gives_the_same_report_whoever_else_plays() -> None:
    a, b = network(TEACHER, 0), network(TEACHER, 1)
    alone = play_roles({"a": a}, "CartPole-v1", 5, seed=1)["roles"]["a"]
    assert play_roles({"b": b, "a": a}, "CartPole-v1", 5, seed=1)["roles"]["a"] == alone
    assert play_roles({"a": a}, "CartPole-v1", 5, seed=2)["roles"]["a"] != alone


def test_episodes_are_none_of_those_of_a_run() -> None:
    seeds = {purpose: set(episode_seeds(key(0, purpose), 200)) for purpose in Purpose}
    own = seeds.pop(Purpose.RETURNS)
    assert not own & set.union(*seeds.values())
    assert not own & set(range(10_000))  # the seeds that people count up


def test_ensemble_follows_the_mean_of_the_values_not_the_majority() -> None:
    def constant(left: float, right: float) -> Network:
        bias = np.array([left, right], np.float32)
        return Network(
            LINEAR, {"network.0.weight": np.zeros((2, 4), np.float32), "network.0.bias": bias}
        )

    ensemble = MeanOfNetworks.of([constant(0, 1), constant(0, 1), constant(87.5, 80)])
    actions = ensemble.act(np.zeros((1, 3, 4), np.float32))
    np.testing.assert_array_equal(actions, [[0, 0, 0]])
    tie = MeanOfNetworks.of([constant(0, 1), constant(1, 0)])
    np.testing.assert_array_equal(tie.act(np.zeros((1, 1, 4), np.float32)), [[0]])


def test_unknown_environment_is_reported_with_the_reason() -> None:
    assert play_roles({"a": network(TEACHER, 0)}, None, reason="synthetic states") == {
        "environment": None,
        "reason": "synthetic states",
    }
    assert "give --env" in play_roles({}, None)["reason"]


def test_network_with_nan_does_not_play() -> None:
    weights = initial_weights(TEACHER, 0)
    weights["network.5.weight"][3] = np.nan
    roles = {"parent_A": network(TEACHER, 1), "child": Network(TEACHER, weights)}
    report = play_roles(roles, "CartPole-v1", 2, ensemble=("parent_A", "child"))["roles"]
    reason = "child: network.5.weight holds NaN or infinity"
    assert report["child"] == {"mean": None, "reason": reason}
    assert report["ensemble"] == {
        "mean": None,
        "reason": reason,
        "members": ["parent_A", "child"],
    }
    assert report["parent_A"]["mean"] > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"environment_id": "CartPole-v1", "episodes": 0}, StageError, "--episodes must be at"),
        ({"environment_id": "CartPole-v11"}, TaskError, "Did you mean"),
        (
            {"environment_id": "Acrobot-v1"},
            StageError,
            "Acrobot-v1 has 6 inputs and 3 actions, but a has 4 and 2; give --env",
        ),
    ],
)
def test_what_cannot_be_played_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        play_roles({"a": network(TEACHER, 0)}, **arguments)


def test_bootstrap_interval_is_close_to_scipys() -> None:
    returns = np.random.default_rng(0).exponential(100, 80)
    ours = bootstrap_interval(returns, np.random.default_rng(1))
    theirs = stats.bootstrap(
        (returns,), np.mean, method="percentile", rng=np.random.default_rng(2), n_resamples=9999
    ).confidence_interval
    np.testing.assert_allclose(ours, theirs, rtol=0.03)


def test_bootstrap_of_many_episodes_is_drawn_in_parts() -> None:
    returns = np.random.default_rng(0).normal(50, 10, 3000)
    low, high = bootstrap_interval(returns, np.random.default_rng(1))
    half = 1.96 * 10 / np.sqrt(3000)  # of a normal mean
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert bootstrap_interval(np.array([7.0]), np.random.default_rng(0)) == [7, 7]
