"""Who plays: many networks at once, an ensemble of them, or either with random actions mixed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.playing.inference import StackedNetworks
from populations.network import NetworkSpec, Weights


class Policy(Protocol):
    """K players side by side. What one of them does never depends on the others."""

    @property
    def n_networks(self) -> int:
        """Number of players, K."""
        ...

    @property
    def n_actions(self) -> int:
        """Number of actions to choose from, A."""
        ...

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.intp]:
        """Choose an action for every lane.

        Args:
            observations: What each player sees in each of its L lanes, ``(K, L, n_inputs)``.

        Returns:
            Actions in ``[0, A)``, ``(K, L)``.
        """
        ...

    def select(self, indices: NDArray[np.intp]) -> Self:
        """Return a policy of the given players only, in that order; this one stays as it is."""
        ...


class StackedPolicy:
    """K networks of one architecture, each greedy on its own Q-values.

    Args:
        spec: Architecture of all networks.
        weights: Tensors of each network, ``K`` of them.

    Raises:
        ValueError: There is no network.
    """

    def __init__(self, spec: NetworkSpec, weights: Sequence[Weights]) -> None:
        self._networks = StackedNetworks.of(spec, weights)
        self._n_actions = spec.n_actions

    @property
    def n_networks(self) -> int:
        """Number of networks, K."""
        return self._networks.n_networks

    @property
    def n_actions(self) -> int:
        """Number of actions, A."""
        return self._n_actions

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the action with the highest Q-value, the lowest one of equals; ``(K, L)``."""
        return _greedy(self._networks.forward(observations))

    def q_values(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the Q-values, ``(K, L, A)``, for observations ``(K, L, n_inputs)``."""
        return self._networks.forward(observations).transpose(0, 2, 1).copy()

    def select(self, indices: NDArray[np.intp]) -> Self:
        """Return a policy of the given networks; see :meth:`Policy.select`."""
        selected = object.__new__(type(self))
        selected._networks = self._networks.select(indices)
        selected._n_actions = self._n_actions
        return selected


class EnsemblePolicy:
    """One player that follows the mean of several teachers' Q-values.

    Teachers differ in scale and offset, so the mean is over ``(Q - mean_a Q) / scale``.

    Args:
        spec: Architecture of all teachers.
        weights: Tensors of each teacher, ``T`` of them.
        scales: Positive scale of each teacher's Q-values, ``(T,)``.

    Raises:
        ValueError: There is no teacher, or the scales do not fit them.
    """

    n_networks = 1

    def __init__(
        self, spec: NetworkSpec, weights: Sequence[Weights], scales: NDArray[np.floating]
    ) -> None:
        if scales.shape != (len(weights),) or not (scales > 0).all():
            raise ValueError(
                f"expected {len(weights)} positive scales, one for each teacher, not {scales}"
            )
        self._networks = StackedNetworks.of(spec, weights)
        self._scales = scales.astype(np.float32)[:, None, None]
        self._n_actions = spec.n_actions

    @property
    def n_actions(self) -> int:
        """Number of actions, A."""
        return self._n_actions

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the action that the teachers prefer on average, ``(1, L)``."""
        n_teachers = self._networks.n_networks
        seen = np.broadcast_to(observations, (n_teachers, *observations.shape[1:]))
        values = self._networks.forward(seen)  # (T, A, L)
        advantages = (values - values.mean(axis=1, keepdims=True)) / self._scales
        return _greedy(advantages.mean(axis=0, keepdims=True))

    def select(self, indices: NDArray[np.intp]) -> Self:
        """Return the ensemble itself: its teachers are not players, and cannot be told apart."""
        if indices.tolist() != [0]:
            raise ValueError(f"an ensemble is one player, number 0, not {indices.tolist()}")
        return self


class EpsilonGreedy:
    """A policy that takes a uniformly random action now and then.

    Args:
        policy: Who chooses the other actions.
        epsilon: Share of random actions, in ``[0, 1]``.
        rngs: One random stream for each of the policy's networks; acting advances them.

    Raises:
        ValueError: ``epsilon`` is outside ``[0, 1]``, or the streams do not fit the networks.
    """

    def __init__(self, policy: Policy, epsilon: float, rngs: Sequence[np.random.Generator]) -> None:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must be in [0, 1], not {epsilon}")
        if len(rngs) != policy.n_networks:
            raise ValueError(
                f"expected {policy.n_networks} random streams, one for each network, "
                f"not {len(rngs)}"
            )
        self._policy = policy
        self._epsilon = epsilon
        self._rngs = tuple(rngs)

    @property
    def n_networks(self) -> int:
        """Number of networks, K."""
        return self._policy.n_networks

    @property
    def n_actions(self) -> int:
        """Number of actions, A."""
        return self._policy.n_actions

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the policy's actions, some of them replaced by random ones; ``(K, L)``."""
        actions = self._policy.act(observations)
        for row, rng in zip(actions, self._rngs, strict=True):
            explore = rng.random(len(row)) < self._epsilon
            random = rng.integers(self.n_actions, size=len(row))
            row[explore] = random[explore]
        return actions

    def select(self, indices: NDArray[np.intp]) -> Self:
        """Return a policy of the given networks, which shares their streams with this one."""
        rngs = [self._rngs[index] for index in indices.tolist()]
        return type(self)(self._policy.select(indices), self._epsilon, rngs)


def _greedy(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the index of the largest of ``values`` ``(K, A, L)`` along A, the lowest of equals.

    The same as ``argmax(axis=1)``, which is several times slower on so short an axis.
    """
    actions = np.zeros((values.shape[0], values.shape[2]), dtype=np.intp)
    best = values[:, 0].copy()
    for action in range(1, values.shape[1]):
        np.copyto(actions, action, where=values[:, action] > best)
        np.maximum(best, values[:, action], out=best)
    return actions
