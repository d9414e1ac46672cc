"""CartPole at full speed: gymnasium's own vector environment, one episode per lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.utils.seeding import np_random
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray


class CartPoleLanes:
    """Lanes of CartPole-v1, stepped together by ``CartPoleVectorEnv``.

    That environment takes one seed for all lanes, so the start states are written into it here:
    seed ``s`` begins with the state of ``gymnasium.make("CartPole-v1").reset(seed=s)``. The
    physics and the step limit are its own. An idle lane plays on, and starts over whenever its
    pole falls; that touches no other lane.

    Args:
        n_lanes: Number of lanes.
        kwargs: Arguments that the scalar and the vector environment share, see ``KWARGS``.
    """

    KWARGS = frozenset({"max_episode_steps", "sutton_barto_reward"})

    def __init__(self, n_lanes: int, **kwargs: Any) -> None:
        self._env: Any = CartPoleVectorEnv(num_envs=n_lanes, **kwargs)
        self._starts: dict[int, NDArray[np.float64]] = {}
        self.observations: NDArray[np.float32] = self._env.reset(seed=0)[0]

    @property
    def n_lanes(self) -> int:
        """Number of lanes."""
        return len(self.observations)

    def start(self, lanes: NDArray[np.intp], seeds: Sequence[int]) -> None:
        """Begin an episode in each of ``lanes``; see ``environments.Lanes.start``."""
        starts = np.stack([self._start(seed) for seed in seeds])  # (n_started, 4)
        self._env.state[:, lanes] = starts.T
        self._env.steps[lanes] = 0
        self._env.prev_done[lanes] = False  # or the next step would reset the lane once more
        self.observations[lanes] = starts

    def step(
        self, actions: NDArray[np.intp], playing: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Take one action in each lane; see ``environments.Lanes.step``."""
        self.observations, rewards, terminated, truncated, _ = self._env.step(actions)
        return (
            np.multiply(rewards, playing, dtype=np.float64),
            terminated & playing,
            truncated & playing,
        )

    def keep(self, lanes: NDArray[np.intp]) -> None:
        """Drop all other lanes; see ``environments.Lanes.keep``."""
        env = self._env
        env.num_envs = len(lanes)
        env.action_space = batch_space(env.single_action_space, len(lanes))
        env.observation_space = batch_space(env.single_observation_space, len(lanes))
        env.state = np.take(env.state, lanes, axis=1)
        env.steps = env.steps[lanes]
        env.prev_done = env.prev_done[lanes]
        self.observations = self.observations[lanes]

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _start(self, seed: int) -> NDArray[np.float64]:
        """Return the state that CartPole's ``reset`` draws for a seed."""
        if seed not in self._starts:
            rng, _ = np_random(int(seed))
            self._starts[seed] = rng.uniform(low=-0.05, high=0.05, size=(4,))
        return self._starts[seed]
