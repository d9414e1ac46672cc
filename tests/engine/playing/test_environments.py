from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from engine.config import EnvironmentConfig
from engine.errors import TaskError
from engine.playing.cartpole import CartPoleLanes
from engine.playing.environments import EnvironmentLanes, TaskSpec, describe, make_lanes


class Countdown(gymnasium.Env[np.ndarray, np.int64]):
    """Actions are numbered 5 and 6, and the observation is an image of the last one."""

    observation_space = spaces.Box(0, 255, (2, 3), np.uint8)
    action_space = spaces.Discrete(2, start=5)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 1 + seed % 3
        return np.full((2, 3), seed, np.uint8), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        return np.full((2, 3), action, np.uint8), float(action), self.left == 0, False, {}


@pytest.mark.parametrize(
    ("name", "kwargs", "task"),
    [
        ("CartPole-v1", {}, TaskSpec("CartPole-v1", (4,), 2, 500)),
        ("CartPole-v1", {"max_episode_steps": 9}, TaskSpec("CartPole-v1", (4,), 2, 9)),
        ("Acrobot-v1", {}, TaskSpec("Acrobot-v1", (6,), 3, 500)),
        ("MountainCar-v0", {}, TaskSpec("MountainCar-v0", (2,), 3, 200)),
    ],
)
def test_task_is_described(name: str, kwargs: dict[str, Any], task: TaskSpec) -> None:
    assert describe(EnvironmentConfig(id=name, kwargs=kwargs)) == task


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("CartPole-v7", {}, r"no environment named 'CartPole-v7'\. Did you mean 'CartPole-v1'"),
        ("Cartpol-v1", {}, r"Did you mean 'CartPole-v1'"),
        ("Xq-v0", {}, r"no environment named 'Xq-v0'\. Environment `Xq` doesn't exist"),
        ("no_such_module:Xq-v0", {}, r"needs a module that is missing: .*no_such_module"),
        ("Pendulum-v1", {}, r"Pendulum-v1 must have Discrete actions, .* not Box\(-2"),
        ("Blackjack-v1", {}, r"must have Box observations of numbers, not Tuple\("),
        ("FrozenLake-v1", {}, r"not Discrete\(16\); .*FlattenObservation"),
        ("CartPole-v1", {"max_episode_steps": -1}, r"Set environment\.kwargs\.max_episode_steps"),
        ("CartPole-v1", {"max_episode_steps": 0}, r"cannot be made with environment\.kwargs"),
        ("CartPole-v1", {"wind": 3}, r"cannot be made with .*'wind': 3.*unexpected keyword"),
        ("Acrobot-v1", {"disable_env_checker": False}, r"multiple values for keyword"),
    ],
)
def test_unplayable_task_is_refused(name: str, kwargs: dict[str, Any], message: str) -> None:
    environment = EnvironmentConfig(id=name, kwargs=kwargs)
    with pytest.raises(TaskError, match=message):
        describe(environment)
    with pytest.raises(TaskError, match=message):
        make_lanes(environment, 2)


def test_outdated_version_names_the_current_one() -> None:
    with (
        pytest.warns(DeprecationWarning, match="LunarLander-v2 is out of date"),
        pytest.raises(TaskError, match=r"named 'LunarLander-v2'\. .*'LunarLander-v3'"),
    ):
        describe(EnvironmentConfig(id="LunarLander-v2"))


def test_missing_package_comes_with_its_command(register: Any) -> None:
    def without_box2d() -> gymnasium.Env:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed, run something")

    def without_other() -> gymnasium.Env:
        raise gymnasium.error.DependencyNotInstalled('run `pip install "other"`')

    with pytest.raises(TaskError, match=r'missing: run pip install "gymnasium\[box2d\]"'):
        describe(EnvironmentConfig(id=register(without_box2d)))
    with pytest.raises(TaskError, match=r'missing: run `pip install "other"`'):
        describe(EnvironmentConfig(id=register(without_other)))


def test_cartpole_takes_the_vector_environment_where_both_know_the_arguments() -> None:
    for kwargs in ({}, {"max_episode_steps": 9}, {"sutton_barto_reward": True}):
        assert isinstance(make_lanes(EnvironmentConfig(kwargs=kwargs), 2), CartPoleLanes)
    lanes = make_lanes(EnvironmentConfig(kwargs={"render_mode": "rgb_array"}), 2)
    assert isinstance(lanes, EnvironmentLanes)


def test_image_is_flattened_and_actions_count_from_their_start(register: Any) -> None:
    environment = EnvironmentConfig(id=register(Countdown, max_episode_steps=9))
    assert describe(environment).observation_shape == (2, 3)
    lanes = make_lanes(environment, 3)
    lanes.start(np.array([0, 2]), [8, 9])
    assert lanes.observations.dtype == np.float32
    np.testing.assert_array_equal(lanes.observations, [[8] * 6, [0] * 6, [9] * 6])

    playing = np.array([True, False, True])
    rewards, terminated, truncated = lanes.step(np.array([0, 1, 1]), playing)
    np.testing.assert_array_equal(rewards, [5, 0, 6])
    np.testing.assert_array_equal(terminated, [False, False, True])
    assert not truncated.any()
    np.testing.assert_array_equal(lanes.observations[[0, 2]], [[5] * 6, [6] * 6])

    lanes.keep(np.array([2, 0]))
    assert lanes.n_lanes == 2
    rewards, _, _ = lanes.step(np.array([0, 1]), np.array([False, True]))
    np.testing.assert_array_equal(rewards, [0, 6])
    np.testing.assert_array_equal(lanes.observations, [[6] * 6, [6] * 6])
    lanes.close()


def test_lane_must_be_started_before_it_plays() -> None:
    lanes = make_lanes(EnvironmentConfig(id="MountainCar-v0"), 2)
    with pytest.raises(RuntimeError, match="lane 1 plays before it was started"):
        lanes.step(np.zeros(2, np.intp), np.array([False, True]))
    lanes.close()
