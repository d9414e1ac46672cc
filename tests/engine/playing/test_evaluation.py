"""Expected returns come from a loop over gymnasium's scalar environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from engine.config import EnvironmentConfig
from engine.errors import TaskError
from engine.playing.environments import describe
from engine.playing.evaluation import evaluate, play
from engine.playing.policies import EnsemblePolicy, EpsilonGreedy, StackedPolicy
from populations.network import NetworkSpec, Weights

MakeWeights = Callable[[NetworkSpec, int], Weights]

CARTPOLE = NetworkSpec((4,), (16, 16), 2)


def naive_action(spec: NetworkSpec, weights: Weights, observation: np.ndarray) -> int:
    values = observation.astype(np.float64)
    for block in spec.blocks:
        values = weights[block.weight] @ values + weights[block.bias]
        values = values if block is spec.blocks[-1] else np.maximum(values, 0)
    return int(values.argmax())


def naive_episode(
    environment: EnvironmentConfig, spec: NetworkSpec, weights: Weights, seed: int
) -> tuple[float, list[np.ndarray]]:
    env = gymnasium.make(environment.id, **environment.kwargs)
    observation, _ = env.reset(seed=seed)
    total, seen, over = 0.0, [], False
    while not over:
        seen.append(observation)
        action = naive_action(spec, weights, observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        over = terminated or truncated
    env.close()
    return total, seen


def falling(random_weights: MakeWeights, n: int) -> list[Weights]:
    return [random_weights(CARTPOLE, seed) for seed in range(n)]


@pytest.mark.parametrize(
    ("name", "kwargs", "n_networks", "n_episodes", "lanes"),
    [
        ("CartPole-v1", {}, 6, 9, 4),
        ("CartPole-v1", {"sutton_barto_reward": True}, 3, 5, 8),
        ("Acrobot-v1", {"max_episode_steps": 60}, 3, 4, 2),
        ("MountainCar-v0", {"max_episode_steps": 40}, 2, 3, 3),
    ],
)
def test_returns_and_visits_equal_a_naive_loop(
    random_weights: MakeWeights,
    name: str,
    kwargs: dict[str, Any],
    n_networks: int,
    n_episodes: int,
    lanes: int,
) -> None:
    environment = EnvironmentConfig(id=name, kwargs=kwargs, lanes=lanes)
    task = describe(environment)
    spec = NetworkSpec(task.observation_shape, (16, 16), task.n_actions)
    weights = [random_weights(spec, seed) for seed in range(n_networks)]
    seeds = range(1000, 1000 + n_episodes)
    evaluation, visited = play(environment, StackedPolicy(spec, weights), seeds)
    assert len(visited) == n_networks
    for k, network in enumerate(weights):
        episodes = [naive_episode(environment, spec, network, seed) for seed in seeds]
        np.testing.assert_allclose(evaluation.returns[k], [total for total, _ in episodes])
        np.testing.assert_array_equal(evaluation.lengths[k], [len(seen) for _, seen in episodes])
        seen = np.concatenate([seen for _, seen in episodes])
        np.testing.assert_allclose(visited[k], seen, rtol=0, atol=1e-6)


def test_balancing_episode_is_cut_off_at_500(balancer: Weights) -> None:
    policy = StackedPolicy(NetworkSpec((4,), (), 2), [balancer])
    evaluation = evaluate(EnvironmentConfig(lanes=3), policy, [11, 12, 13])
    np.testing.assert_array_equal(evaluation.returns, [[500, 500, 500]])
    assert evaluation.utilization == 1


def test_network_does_not_depend_on_its_neighbors(random_weights: MakeWeights) -> None:
    environment, seeds = EnvironmentConfig(lanes=4), range(13)
    weights = falling(random_weights, 24)
    together = evaluate(environment, StackedPolicy(CARTPOLE, weights), seeds)
    assert len(np.unique(together.returns)) > 5
    for indices in ([0], [23], [7, 3, 3, 20], list(range(11, 24))):
        policy = StackedPolicy(CARTPOLE, [weights[i] for i in indices])
        some = evaluate(environment, policy, seeds)
        np.testing.assert_array_equal(some.returns, together.returns[indices])
        np.testing.assert_array_equal(some.lengths, together.lengths[indices])


@pytest.mark.parametrize("n_episodes", [1, 3, 8])
def test_fewer_episodes_are_the_first_of_more(random_weights: MakeWeights, n_episodes: int) -> None:
    environment, seeds = EnvironmentConfig(lanes=5), range(50, 82)
    policy = StackedPolicy(CARTPOLE, falling(random_weights, 7))
    many, visited_by_many = play(environment, policy, seeds)
    few, visited = play(environment, policy, seeds[:n_episodes])
    np.testing.assert_array_equal(few.returns, many.returns[:, :n_episodes])
    for seen, seen_by_many in zip(visited, visited_by_many, strict=True):
        np.testing.assert_array_equal(seen, seen_by_many[: len(seen)])


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_policy_can_play_again(random_weights: MakeWeights, lanes: int) -> None:
    policy = StackedPolicy(CARTPOLE, falling(random_weights, 9))
    first = evaluate(EnvironmentConfig(lanes=lanes), policy, range(10))
    second = evaluate(EnvironmentConfig(lanes=lanes), policy, range(10))
    assert policy.n_networks == 9
    np.testing.assert_array_equal(first.returns, second.returns)
    assert first.utilization == second.utilization


@pytest.mark.parametrize(
    ("lanes", "n_episodes", "utilization"),
    [(4, 8, 1.0), (4, 6, 6 / 8), (1, 3, 1.0), (8, 2, 2 / 8)],
)
def test_utilization_counts_idle_lanes(
    balancer: Weights, lanes: int, n_episodes: int, utilization: float
) -> None:
    environment = EnvironmentConfig(lanes=lanes, kwargs={"max_episode_steps": 5})
    policy = StackedPolicy(NetworkSpec((4,), (), 2), [balancer] * 3)
    evaluation = evaluate(environment, policy, range(n_episodes))
    assert (evaluation.lengths == 5).all()
    assert evaluation.utilization == pytest.approx(utilization)


def test_networks_that_are_done_leave_the_stack(balancer: Weights) -> None:
    falls_at_once = {name: -tensor for name, tensor in balancer.items()}
    policy = StackedPolicy(NetworkSpec((4,), (), 2), [*[falls_at_once] * 31, balancer])
    evaluation = evaluate(EnvironmentConfig(lanes=4), policy, range(4))
    np.testing.assert_array_equal(evaluation.returns[31], [500] * 4)
    assert evaluation.returns[:31].max() < 15
    assert evaluation.utilization > 0.8  # 0.03 if all 32 were stepped to the end


def test_random_actions_are_those_of_the_streams(random_weights: MakeWeights) -> None:
    def streams(indices: Sequence[int]) -> list[np.random.Generator]:
        return [np.random.default_rng([3, index]) for index in indices]

    environment, seeds = EnvironmentConfig(lanes=3), range(7)
    weights = falling(random_weights, 5)
    together, visited = play(
        environment, EpsilonGreedy(StackedPolicy(CARTPOLE, weights), 0.3, streams(range(5))), seeds
    )
    alone, visited_alone = play(
        environment, EpsilonGreedy(StackedPolicy(CARTPOLE, weights[3:4]), 0.3, streams([3])), seeds
    )
    np.testing.assert_array_equal(alone.returns[0], together.returns[3])
    np.testing.assert_array_equal(visited_alone[0], visited[3])
    greedy = evaluate(environment, StackedPolicy(CARTPOLE, weights), seeds)
    assert (greedy.returns != together.returns).any()


def test_ensemble_of_one_plays_like_its_teacher(random_weights: MakeWeights) -> None:
    environment, weights = EnvironmentConfig(lanes=4), falling(random_weights, 1)
    teacher = evaluate(environment, StackedPolicy(CARTPOLE, weights), range(9))
    ensemble = evaluate(environment, EnsemblePolicy(CARTPOLE, weights, np.ones(1)), range(9))
    np.testing.assert_array_equal(ensemble.returns, teacher.returns)


def test_no_episode_is_refused(balancer: Weights) -> None:
    policy = StackedPolicy(NetworkSpec((4,), (), 2), [balancer])
    with pytest.raises(ValueError, match="at least one episode seed"):
        evaluate(EnvironmentConfig(), policy, [])


class Faulty(gymnasium.Env[np.ndarray, np.int64]):
    """Every episode is one step long and pays NaN."""

    pays = float("nan")
    observation_space = spaces.Box(0, 1, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(4, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(4, np.float32), self.pays, True, False, {}


class Lavish(Faulty):
    """Pays so much that the mean of a few episodes would be infinite."""

    pays = -1e308


def test_rewards_that_are_no_numbers_are_refused(register: Any, balancer: Weights) -> None:
    environment = EnvironmentConfig(id=register(Faulty, max_episode_steps=9))
    policy = StackedPolicy(NetworkSpec((4,), (), 2), [balancer])
    with pytest.raises(TaskError, match="gave a reward that is NaN or infinite"):
        evaluate(environment, policy, range(3))


def test_returns_whose_sum_would_be_infinite_are_refused(register: Any, balancer: Weights) -> None:
    environment = EnvironmentConfig(id=register(Lavish, max_episode_steps=9))
    policy = StackedPolicy(NetworkSpec((4,), (), 2), [balancer])
    with pytest.raises(TaskError, match=r"a return of 1e\+308; expected at most 1e\+100"):
        evaluate(environment, policy, range(3))
