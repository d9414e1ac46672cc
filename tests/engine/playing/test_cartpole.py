"""Expected numbers come from gymnasium's scalar CartPole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from engine.playing.cartpole import CartPoleLanes

Controller = Callable[[np.ndarray, np.random.Generator], int]


def at_random(observation: np.ndarray, rng: np.random.Generator) -> int:
    return int(rng.integers(2))


def mostly_upright(observation: np.ndarray, rng: np.random.Generator) -> int:
    upright = 0.1 * observation[0] + 0.5 * observation[1] + observation[2] + observation[3] > 0
    return int(upright if rng.random() < 0.95 else rng.integers(2))


@pytest.mark.parametrize(
    ("controller", "kwargs"),
    [
        (at_random, {}),
        (mostly_upright, {}),
        (at_random, {"max_episode_steps": 12}),
        (mostly_upright, {"sutton_barto_reward": True, "max_episode_steps": 60}),
    ],
)
def test_lanes_equal_the_scalar_environment(controller: Controller, kwargs: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    lanes = CartPoleLanes(5, **kwargs)
    envs = [gymnasium.make("CartPole-v1", **kwargs) for _ in range(5)]
    seeds = iter(range(100, 1000))
    playing = np.zeros(5, np.bool_)
    seen: list[np.ndarray] = [np.zeros(4, np.float32)] * 5
    n_terminated = n_truncated = 0
    for step in range(1100):
        if step % 7 == 0:  # so lanes idle for a while, and start at different times
            for lane in np.flatnonzero(~playing).tolist():
                seed = next(seeds)
                lanes.start(np.array([lane]), [seed])
                seen[lane], _ = envs[lane].reset(seed=seed)
                np.testing.assert_array_equal(lanes.observations[lane], seen[lane])
                playing[lane] = True
        actions = np.array([controller(observation, rng) for observation in seen])
        rewards, terminated, truncated = lanes.step(actions, playing)
        for lane in range(5):
            if not playing[lane]:
                assert (rewards[lane], terminated[lane], truncated[lane]) == (0, False, False)
                continue
            seen[lane], reward, fell, cut, _ = envs[lane].step(int(actions[lane]))
            assert (rewards[lane], terminated[lane], truncated[lane]) == (reward, fell, cut)
            np.testing.assert_allclose(lanes.observations[lane], seen[lane], rtol=0, atol=1e-6)
        n_terminated += int(terminated.sum())
        n_truncated += int(truncated.sum())
        playing &= ~(terminated | truncated)
    assert n_terminated or n_truncated
    if controller is mostly_upright or kwargs:
        assert n_truncated


@pytest.mark.parametrize("n_lanes", [7, 16, 1000])
def test_lane_does_not_depend_on_the_other_lanes(n_lanes: int) -> None:
    together, rng = CartPoleLanes(n_lanes), np.random.default_rng(n_lanes)
    together.start(np.arange(n_lanes), range(n_lanes))
    watched = sorted({0, 1, 3, 6, n_lanes - 1})
    alone = [CartPoleLanes(1) for _ in watched]
    for lane, single in zip(watched, alone, strict=True):
        single.start(np.array([0]), [lane])
    for _ in range(60):  # idle lanes play on, so falls do not matter here
        actions = rng.integers(2, size=n_lanes)
        together.step(actions, np.ones(n_lanes, np.bool_))
        for lane, single in zip(watched, alone, strict=True):
            _, terminated, _ = single.step(actions[[lane]], np.ones(1, np.bool_))
            np.testing.assert_array_equal(single.observations[0], together.observations[lane])
            if terminated[0]:
                together.start(np.array([lane]), [lane])
                single.start(np.array([0]), [lane])


def test_kept_lanes_go_on_as_before() -> None:
    rng, kept = np.random.default_rng(0), np.array([9, 2, 5])
    whole, part = CartPoleLanes(10), CartPoleLanes(10)
    for lanes in (whole, part):
        lanes.start(np.arange(10), range(10))
    playing = np.ones(10, np.bool_)
    for step in range(30):
        actions = rng.integers(2, size=10)
        expected = whole.step(actions, playing)
        if step == 4:
            part.keep(kept)
        if step < 4:
            part.step(actions, playing)
            continue
        assert part.n_lanes == 3
        results = part.step(actions[kept], playing[:3])
        ended = expected[1] | expected[2]
        for got, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(got, wanted[kept])
        np.testing.assert_array_equal(part.observations, whole.observations[kept])
        for lane in np.flatnonzero(ended).tolist():
            whole.start(np.array([lane]), [lane])
        for lane in np.flatnonzero(ended[kept]).tolist():
            part.start(np.array([lane]), [int(kept[lane])])
