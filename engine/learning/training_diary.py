"""What is kept of a training besides the network: the states it visited, and its returns."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from engine.learning.pqn import Rollout


class TrainingDiary:
    """Notes of one learner, made rollout by rollout.

    Args:
        max_states: How many of the latest states to keep; None for all.
    """

    def __init__(self, max_states: int | None) -> None:
        self._max_states = max_states
        self._parts: deque[NDArray[np.float32]] = deque()
        self._n_kept = 0
        self._running = np.zeros(0)
        self.n_visited = 0
        self.returns: list[float] = []

    def note(self, rollout: Rollout) -> None:
        """Note a rollout of one network; its lanes are those of the rollout before."""
        states = rollout.observations.reshape(-1, rollout.observations.shape[-1])
        self._parts.append(states.copy())
        self._n_kept += len(states)
        self.n_visited += len(states)
        if self._max_states is not None:
            while self._n_kept - len(self._parts[0]) >= self._max_states:
                self._n_kept -= len(self._parts.popleft())
        if not len(self._running):
            self._running = np.zeros(rollout.rewards.shape[2])
        ended = rollout.terminated[:, 0] | rollout.truncated[:, 0]  # (S, L)
        for rewards, over in zip(rollout.rewards[:, 0], ended, strict=True):
            self._running += rewards
            self.returns += self._running[over].tolist()
            self._running[over] = 0.0

    def states(self) -> NDArray[np.float32]:
        """Return the latest states, float32 ``(N, n_inputs)``, in the order of their steps."""
        states = np.concatenate(self._parts)
        return states if self._max_states is None else states[-self._max_states :]

    def recent_return(self, n_episodes: int) -> float | None:
        """Return the mean over the latest training episodes, or None before the first one."""
        recent = self.returns[-n_episodes:]
        return float(np.mean(recent)) if recent else None
