"""Parallelised Q-learning (PQN) of many stacked networks at once.

Vector environments instead of a replay buffer, LayerNorm instead of a target network, and
lambda-returns: Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning",
arXiv:2407.04811. Each of the K networks plays its own lanes and learns from them alone; they only
share the calls and the order in which a rollout is cut into minibatches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import TeacherTrainingConfig
from engine.learning.qnetwork import StackedQNetwork
from engine.playing.environments import Lanes

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Rollout:
    """What K networks lived through; S steps, L lanes each.

    Attributes:
        observations: What was seen before each step, float32 ``(S, K, L, n_inputs)``.
        next_observations: What was seen after it, before any restart, of the same shape.
        actions: Actions taken, intp ``(S, K, L)``.
        rewards: Rewards, float32 ``(S, K, L)``.
        terminated: Whether the step ended an episode for good, bool ``(S, K, L)``.
        truncated: Whether a time limit cut the episode off, bool ``(S, K, L)``.
    """

    observations: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    actions: NDArray[np.intp]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    def of(self, network: int) -> Rollout:
        """Return what one network lived through; views of shape ``(S, 1, L, ...)``."""
        one = slice(network, network + 1)
        return Rollout(
            self.observations[:, one],
            self.next_observations[:, one],
            self.actions[:, one],
            self.rewards[:, one],
            self.terminated[:, one],
            self.truncated[:, one],
        )


def lambda_returns(
    rollout: Rollout,
    next_values: NDArray[np.float32],
    reward_scale: float,
    gamma: float,
    trace_decay: float,
) -> NDArray[np.float32]:
    """Return the targets of Q(lambda), eq. 8 of the PQN paper.

    A terminated episode is worth nothing afterwards. A truncated one, and the end of the rollout,
    is worth what the network expects of the last observation.

    Args:
        rollout: S steps.
        next_values: Best action value of ``next_observations``, ``(S, K, L)``.
        reward_scale: Factor on the rewards, which next_values and targets are in units of.
        gamma: Discount.
        trace_decay: Lambda; 0 gives one-step targets, 1 Monte Carlo returns.

    Returns:
        Targets of the actions taken, float32 ``(S, K, L)``.
    """
    targets = np.empty_like(rollout.rewards)
    following = next_values[-1]
    for t in reversed(range(len(targets))):
        mixed = next_values[t] + trace_decay * (following - next_values[t])
        future = np.where(rollout.truncated[t], next_values[t], mixed)
        worth = np.where(rollout.terminated[t], 0.0, future)
        targets[t] = reward_scale * rollout.rewards[t] + gamma * worth
        following = targets[t]
    return targets


class RAdam:
    """Rectified Adam for stacked parameters, with the same numbers as ``torch.optim.RAdam``.

    Kept here because networks leave the stack while the others go on, and because importing
    ``torch.optim`` takes longer than a small run.

    Source: Liu et al. 2020, "On the Variance of the Adaptive Learning Rate and Beyond",
    arXiv:1908.03265, algorithm 2.

    Args:
        parameters: Tensors to train, in place.
        betas: Decay of the first and second moment.
        epsilon: Added to the square root of the second moment.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self._betas = betas
        self._epsilon = epsilon
        self._n_steps = 0
        self._parameters = list(parameters)
        self._first = [torch.zeros_like(parameter) for parameter in parameters]
        self._second = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Move all parameters by one step against their gradients."""
        self._n_steps += 1
        beta1, beta2 = self._betas
        rest = 1 - beta2**self._n_steps
        rho_limit = 2 / (1 - beta2) - 1
        rho = rho_limit - 2 * self._n_steps * beta2**self._n_steps / rest
        step_size = learning_rate / (1 - beta1**self._n_steps)
        with torch.no_grad():
            for parameter, gradient, first, second in zip(
                self._parameters, gradients, self._first, self._second, strict=True
            ):
                first.lerp_(gradient, 1 - beta1)
                second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                if rho <= 5:  # the variance of the adaptive rate is not tractable yet
                    parameter.add_(first, alpha=-step_size)
                    continue
                rectified = math.sqrt(
                    (rho - 4) * (rho - 2) * rho_limit / ((rho_limit - 4) * (rho_limit - 2) * rho)
                )
                scale = second.sqrt().add_(self._epsilon)
                parameter.addcdiv_(first, scale, value=-step_size * rectified * math.sqrt(rest))

    def keep(self, parameters: Sequence[Tensor], networks: Tensor) -> None:
        """Go on with ``parameters``, which are the given networks of the old ones."""
        self._parameters = list(parameters)
        self._first = [moment[networks] for moment in self._first]
        self._second = [moment[networks] for moment in self._second]


def clip_per_network(gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """Return gradients where no network's norm over all its tensors exceeds ``max_norm``.

    Args:
        gradients: Tensors with the K networks on their first axis.
        max_norm: Largest Euclidean norm of one network's gradient.
    """
    squares = [gradient.square().flatten(1).sum(dim=1) for gradient in gradients]
    norms = torch.stack(squares).sum(dim=0).sqrt()  # (K,)
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    return [g * factors.view(-1, *([1] * (g.ndim - 1))) for g in gradients]


class PQN:
    """K networks that play and learn side by side.

    Args:
        network: The networks, trained in place.
        settings: How they are trained.
        lanes: K times ``settings.lanes`` environments; network k plays the k-th group of them.
        rngs: One random stream per network: its exploration and its episode seeds.
        order: Random stream of the minibatches, which all networks share.
    """

    def __init__(
        self,
        network: StackedQNetwork,
        settings: TeacherTrainingConfig,
        lanes: Lanes,
        rngs: Sequence[np.random.Generator],
        order: np.random.Generator,
    ) -> None:
        self.network = network
        self._settings = settings
        self._lanes = lanes
        self._rngs = list(rngs)
        self._order = order
        self._optimizer = RAdam(list(network.parameters.values()))
        self._restart(np.ones((network.n_networks, settings.lanes), dtype=np.bool_))

    def rollout(self, epsilon: float) -> Rollout:
        """Play ``settings.rollout`` epsilon-greedy steps in every lane."""
        n_steps, n_lanes = self._settings.rollout, self._settings.lanes
        spec, n_networks = self.network.spec, self.network.n_networks
        shape = (n_steps, n_networks, n_lanes)
        draws = [self._explore(rng, (n_steps, n_lanes), epsilon) for rng in self._rngs]
        explore = np.stack([draw[0] for draw in draws], axis=1)
        actions = np.stack([draw[1] for draw in draws], axis=1)
        record = Rollout(
            observations=np.empty((*shape, spec.n_inputs), dtype=np.float32),
            next_observations=np.empty((*shape, spec.n_inputs), dtype=np.float32),
            actions=actions,
            rewards=np.empty(shape, dtype=np.float32),
            terminated=np.empty(shape, dtype=np.bool_),
            truncated=np.empty(shape, dtype=np.bool_),
        )
        playing = np.ones(n_networks * n_lanes, dtype=np.bool_)
        for t in range(n_steps):
            record.observations[t] = self._lanes.observations.reshape(n_networks, n_lanes, -1)
            greedy = self._values(record.observations[t]).argmax(axis=2)
            np.copyto(actions[t], greedy, where=~explore[t])
            rewards, terminated, truncated = self._lanes.step(actions[t].reshape(-1), playing)
            record.next_observations[t] = self._lanes.observations.reshape(n_networks, n_lanes, -1)
            record.rewards[t] = rewards.reshape(n_networks, n_lanes)
            record.terminated[t] = terminated.reshape(n_networks, n_lanes)
            record.truncated[t] = truncated.reshape(n_networks, n_lanes)
            self._restart(record.terminated[t] | record.truncated[t])
        return record

    def learn(self, rollout: Rollout, learning_rate: float) -> None:
        """Move every network towards the lambda-returns of its own lanes."""
        settings, n_networks = self._settings, self.network.n_networks
        n_samples = settings.rollout * settings.lanes
        observations = _by_network(rollout.observations)
        next_values = self._values(_by_network(rollout.next_observations)).max(axis=2)
        next_values = next_values.reshape(n_networks, settings.rollout, -1).swapaxes(0, 1)
        returns = lambda_returns(
            rollout, next_values, settings.reward_scale, settings.gamma, settings.trace_decay
        )
        inputs = torch.from_numpy(observations)
        targets = torch.from_numpy(_by_network(returns))
        actions = torch.from_numpy(_by_network(rollout.actions)).unsqueeze(2)
        parameters = list(self.network.parameters.values())
        for _ in range(settings.epochs):
            order = torch.from_numpy(self._order.permutation(n_samples))
            for batch in order.chunk(settings.minibatches):
                values = self.network.forward(inputs[:, batch])
                taken = values.gather(2, actions[:, batch]).squeeze(2)
                errors = taken - targets[:, batch]
                loss = 0.5 * errors.square().mean(dim=1).sum()  # networks do not mix
                gradients = torch.autograd.grad(loss, parameters)
                clipped = clip_per_network(gradients, settings.max_grad_norm)
                self._optimizer.step(clipped, learning_rate)

    def weights(self) -> list[dict[str, NDArray[np.float32]]]:
        """Return the weights of each network, with Q-values in units of the true reward."""
        output = self.network.spec.blocks[-1]
        weights = self.network.to_weights()
        for network in weights:
            network[output.weight] /= np.float32(self._settings.reward_scale)
            network[output.bias] /= np.float32(self._settings.reward_scale)
        return weights

    def keep(self, networks: Sequence[int]) -> None:
        """Go on with some of the networks and their lanes; the others are gone."""
        index = torch.tensor(networks)
        parameters = {
            name: tensor.detach()[index].requires_grad_()
            for name, tensor in self.network.parameters.items()
        }
        self.network = StackedQNetwork(self.network.spec, parameters)
        self._optimizer.keep(list(parameters.values()), index)
        self._rngs = [self._rngs[k] for k in networks]
        groups = np.arange(self._lanes.n_lanes).reshape(-1, self._settings.lanes)
        self._lanes.keep(groups[list(networks)].reshape(-1))

    def _explore(
        self, rng: np.random.Generator, shape: tuple[int, int], epsilon: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        explore = rng.random(shape) < epsilon
        return explore, rng.integers(self.network.spec.n_actions, size=shape, dtype=np.intp)

    def _values(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            values: NDArray[np.float32] = self.network.forward(
                torch.from_numpy(observations)
            ).numpy()
        return values

    def _restart(self, ended: NDArray[np.bool_]) -> None:
        """Start an episode, with a fresh seed of its network, in every lane that needs one."""
        if not ended.any():
            return
        seeds = [
            seed
            for rng, lanes in zip(self._rngs, ended, strict=True)
            for seed in rng.integers(2**31, size=int(lanes.sum())).tolist()
        ]
        self._lanes.start(np.flatnonzero(ended), seeds)


def _by_network(values: NDArray[T]) -> NDArray[T]:
    """Return ``(S, K, L, ...)`` as a contiguous ``(K, S * L, ...)``."""
    n_steps, n_networks, n_lanes, *rest = values.shape
    swapped = np.ascontiguousarray(values.swapaxes(0, 1))
    return swapped.reshape(n_networks, n_steps * n_lanes, *rest)
