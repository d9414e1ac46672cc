"""The task that networks play: what it looks like, and many episodes of it side by side."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from engine.config import EnvironmentConfig
from engine.errors import TaskError
from engine.playing.cartpole import CartPoleLanes

StepResult = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Reward, terminated and truncated of each lane."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a network must fit to play an environment.

    Attributes:
        id: Gymnasium id.
        observation_shape: Shape of one observation, before it is flattened.
        n_actions: Number of discrete actions.
        max_episode_steps: Steps after which an episode is cut off.
    """

    id: str
    observation_shape: tuple[int, ...]
    n_actions: int
    max_episode_steps: int


class Lanes(Protocol):
    """Episodes side by side; a lane plays one episode, and then the next one it is given.

    Attributes:
        observations: Current observation of each lane, flattened, ``(n_lanes, n_inputs)``. What an
            idle lane shows means nothing.
    """

    observations: NDArray[np.float32]

    @property
    def n_lanes(self) -> int:
        """Number of lanes."""
        ...

    def start(self, lanes: NDArray[np.intp], seeds: Sequence[int]) -> None:
        """Begin an episode in each of ``lanes``, the one that its seed stands for."""
        ...

    def step(self, actions: NDArray[np.intp], playing: NDArray[np.bool_]) -> StepResult:
        """Take one action in each lane.

        Args:
            actions: Action of each lane, counted from 0, ``(n_lanes,)``.
            playing: Lanes whose episode is under way, ``(n_lanes,)``. The others get reward 0 and
                end nothing.
        """
        ...

    def keep(self, lanes: NDArray[np.intp]) -> None:
        """Drop all other lanes; the kept ones are renumbered from 0 in the given order."""
        ...

    def close(self) -> None:
        """Free what the environments hold."""
        ...


def describe(environment: EnvironmentConfig) -> TaskSpec:
    """Return what a network must fit, after making the environment once.

    Raises:
        TaskError: The environment is unknown, lacks a package, refuses its arguments, never cuts an
            episode off, or has other spaces than a Box observation and Discrete actions.
    """
    env = _make(environment)
    try:
        return _inspect(env, environment.id)
    finally:
        env.close()


def make_lanes(environment: EnvironmentConfig, n_lanes: int) -> Lanes:
    """Return ``n_lanes`` lanes of an environment, none of them playing yet.

    CartPole-v1 is played by gymnasium's own vector environment; any other environment is stepped
    lane by lane, which gymnasium's general vector environments do no faster.

    Raises:
        TaskError: As in :func:`describe`.
    """
    task = describe(environment)
    if task.id == "CartPole-v1" and environment.kwargs.keys() <= CartPoleLanes.KWARGS:
        return CartPoleLanes(n_lanes, **environment.kwargs)
    return EnvironmentLanes(environment, n_lanes)


class EnvironmentLanes:
    """Lanes of any gymnasium environment: one environment each, stepped one by one.

    An environment is made when its lane first starts, and only playing lanes are stepped.

    Args:
        environment: The task.
        n_lanes: Number of lanes.

    Raises:
        TaskError: As in :func:`describe`.
    """

    def __init__(self, environment: EnvironmentConfig, n_lanes: int) -> None:
        first = _make(environment)
        task = _inspect(first, environment.id)
        self._environment = environment
        self._first_action = _actions(first, environment.id).start
        self._envs: list[gymnasium.Env[Any, Any] | None] = [first, *[None] * (n_lanes - 1)]
        self.observations = np.zeros((n_lanes, int(np.prod(task.observation_shape))), np.float32)

    @property
    def n_lanes(self) -> int:
        """Number of lanes."""
        return len(self._envs)

    def start(self, lanes: NDArray[np.intp], seeds: Sequence[int]) -> None:
        """Begin an episode in each of ``lanes``; see :meth:`Lanes.start`."""
        for lane, seed in zip(lanes.tolist(), seeds, strict=True):
            env = self._envs[lane]
            if env is None:
                env = self._envs[lane] = _make(self._environment)
            observation, _ = env.reset(seed=int(seed))
            self.observations[lane] = np.ravel(observation)

    def step(self, actions: NDArray[np.intp], playing: NDArray[np.bool_]) -> StepResult:
        """Take one action in each playing lane; see :meth:`Lanes.step`."""
        rewards = np.zeros(self.n_lanes)
        terminated = np.zeros(self.n_lanes, dtype=np.bool_)
        truncated = np.zeros(self.n_lanes, dtype=np.bool_)
        taken = (actions + self._first_action).tolist()
        for lane in np.flatnonzero(playing).tolist():
            env = self._envs[lane]
            if env is None:
                raise RuntimeError(f"lane {lane} plays before it was started")
            observation, rewards[lane], terminated[lane], truncated[lane], _ = env.step(taken[lane])
            self.observations[lane] = np.ravel(observation)
        return rewards, terminated, truncated

    def keep(self, lanes: NDArray[np.intp]) -> None:
        """Drop all other lanes; see :meth:`Lanes.keep`."""
        kept = lanes.tolist()
        for lane in set(range(self.n_lanes)).difference(kept):
            self._close(lane)
        self._envs = [self._envs[lane] for lane in kept]
        self.observations = self.observations[lanes]

    def close(self) -> None:
        """Close all environments."""
        for lane in range(self.n_lanes):
            self._close(lane)

    def _close(self, lane: int) -> None:
        env, self._envs[lane] = self._envs[lane], None
        if env is not None:
            env.close()


def _make(environment: EnvironmentConfig) -> gymnasium.Env[Any, Any]:
    """Make the environment, or say in one sentence why not."""
    name, kwargs = environment.id, environment.kwargs
    try:
        return gymnasium.make(name, disable_env_checker=True, **kwargs)
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        raise TaskError(f"no environment named {name!r}. {_hint(name, error)}") from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise TaskError(f"{name} needs a package that is missing: {_install(error)}") from error
    except ModuleNotFoundError as error:
        raise TaskError(f"{name} needs a module that is missing: {error}") from error
    except (TypeError, ValueError, AssertionError, gymnasium.error.Error) as error:
        raise TaskError(
            f"{name} cannot be made with environment.kwargs {kwargs}: {error}"
        ) from error


def _inspect(env: gymnasium.Env[Any, Any], name: str) -> TaskSpec:
    """Return the spec of an environment, or raise a TaskError if no Q-network can play it."""
    observations = env.observation_space
    numeric = observations.dtype is not None and observations.dtype.kind in "biuf"
    if not isinstance(observations, spaces.Box) or not numeric:
        raise TaskError(
            f"{name} must have Box observations of numbers, not {observations}; register it with "
            "gymnasium's FlattenObservation wrapper, which makes a Box of most other spaces"
        )
    actions = _actions(env, name)
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is None:
        raise TaskError(
            f"{name} has no step limit, so an episode might never end. "
            "Set environment.kwargs.max_episode_steps"
        )
    return TaskSpec(name, observations.shape or (1,), int(actions.n), limit)


def _actions(env: gymnasium.Env[Any, Any], name: str) -> spaces.Discrete:
    """Return the action space, which must be Discrete."""
    if not isinstance(env.action_space, spaces.Discrete):
        raise TaskError(
            f"{name} must have Discrete actions, one Q-value each, not {env.action_space}"
        )
    return env.action_space


def _hint(name: str, error: Exception) -> str:
    """Return the registered names that come close, or what gymnasium itself has to say."""
    close = difflib.get_close_matches(name, gymnasium.registry, n=3)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else str(error)


def _install(error: Exception) -> str:
    """Return the command that installs what is missing."""
    if "box2d" in str(error).lower():
        return 'run pip install "gymnasium[box2d]"'
    return str(error)
