"""Losses of a stack of networks, as the gradient that a backward pass starts from.

All tensors of values are ``(K, n_actions, B)``. B may be padded to a multiple of 32 with states
that do not count: the states that do come first, and every mean is over them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor


class Loss(Protocol):
    """What a stack is trained to bring down."""

    def of_states(self, states: Tensor) -> Self:
        """Return the loss on some of the states, given by index and in that order."""
        ...

    def gradient(self, values: Tensor, start: int, n_states: int) -> Tensor:
        """Return the gradient of the mean loss with respect to ``values``.

        Args:
            values: Q-values, shape ``(K, n_actions, B)``, of the states ``start ... start + B``.
            start: First of these states.
            n_states: How many of them count; the gradient of the others is zero.

        Returns:
            Shape ``(K, n_actions, B)``.
        """
        ...

    def parts(self, values: Tensor, start: int, n_states: int) -> tuple[Tensor, Tensor]:
        """Return the mean soft and hard loss of each network, ``(K,)`` each, neither weighted.

        Arguments as in :meth:`gradient`.
        """
        ...

    def value(self, values: Tensor, n_states: int) -> Tensor:
        """Return the mean loss of each network over the first states, shape ``(K,)``."""
        ...

    def divergence(self, values: Tensor, n_states: int) -> Tensor:
        """Return the mean KL divergence of each network from its target in nats, ``(K,)``."""
        ...


@dataclass(frozen=True)
class ImitationLoss:
    """Per network: ``(1 - h) * T^2 * KL(p || q) + h * CE(best action, softmax(z))``.

    ``p`` and ``q`` are the softmax of target and network at temperature ``T``; the factor ``T^2``
    keeps the size of the gradient independent of ``T`` (Hinton et al. 2015, arXiv:1503.02531,
    section 2). The KL divergence for Q-networks is Rusu et al. 2015 (arXiv:1511.06295),
    equation 3; there the teacher's temperature alone is changed, here both share it.

    Attributes:
        temperature: ``T`` of each network, shape ``(K, 1, 1)``.
        hard_weight: ``h`` of each network, shape ``(K, 1, 1)``, in ``[0, 1]``.
        probabilities: ``p``, shape ``(K, n_actions, N)``.
        best: One-hot best action of the target, shape ``(K, n_actions, N)``; None where no
            network has a hard part.
    """

    temperature: Tensor
    hard_weight: Tensor
    probabilities: Tensor
    best: Tensor | None

    @classmethod
    def towards(cls, targets: Tensor, temperature: Tensor, hard_weight: Tensor) -> ImitationLoss:
        """Build the loss for fixed targets.

        Args:
            targets: Values to imitate, float32 of shape ``(K, n_actions, N)``.
            temperature: Shape ``(K,)``, positive.
            hard_weight: Shape ``(K,)``, in ``[0, 1]``.
        """
        by_network = temperature.view(-1, 1, 1)
        best = one_hot_best(targets) if bool((hard_weight > 0).any()) else None
        return cls(
            temperature=by_network,
            hard_weight=hard_weight.view(-1, 1, 1),
            probabilities=torch.softmax(targets / by_network, dim=1),
            best=best,
        )

    def of_states(self, states: Tensor) -> ImitationLoss:
        """Return the loss on some of the states; see :class:`Loss`."""
        return replace(
            self,
            probabilities=self.probabilities.index_select(2, states),
            best=None if self.best is None else self.best.index_select(2, states),
        )

    def gradient(self, values: Tensor, start: int, n_states: int) -> Tensor:
        """Return the gradient of the mean loss; see :class:`Loss`."""
        width = values.shape[2]
        wanted = self.probabilities[:, :, start : start + width]
        error = torch.softmax(values / self.temperature, dim=1).sub_(wanted)
        error.mul_(self.temperature)  # T^2 from the loss, 1 / T from the softmax
        if self.best is not None:
            hard = torch.softmax(values, dim=1).sub_(self.best[:, :, start : start + width])
            error.lerp_(hard, self.hard_weight.expand_as(error))
        return _of_counted(error, n_states)

    def parts(self, values: Tensor, start: int, n_states: int) -> tuple[Tensor, Tensor]:
        """Return the mean soft and hard loss; see :class:`Loss`."""
        here = slice(start, start + values.shape[2])
        soft = _mean(self._divergences(values, self.probabilities[:, :, here]), n_states)
        soft = soft * self.temperature.view(-1) ** 2
        if self.best is None:
            return soft, torch.zeros_like(soft)
        return soft, _mean(_cross_entropies(values, self.best[:, :, here]), n_states)

    def value(self, values: Tensor, n_states: int) -> Tensor:
        """Return the mean loss of each network; see :class:`Loss`."""
        soft, hard = self.parts(values, 0, n_states)
        return soft if self.best is None else torch.lerp(soft, hard, self.hard_weight.view(-1))

    def divergence(self, values: Tensor, n_states: int) -> Tensor:
        """Return the mean KL divergence at temperature ``T``; see :class:`Loss`."""
        return _mean(self._divergences(values, self.probabilities), n_states)

    def _divergences(self, values: Tensor, p: Tensor) -> Tensor:
        """Return the KL divergence of every state, ``(K, B)``."""
        log_q = torch.log_softmax(values / self.temperature, dim=1)
        return (torch.xlogy(p, p) - p * log_q).sum(dim=1)


@dataclass(frozen=True)
class SquaredLoss:
    """Per network: the mean over states and actions of ``(z - target)^2``.

    Attributes:
        targets: Values to fit, shape ``(K, n_actions, N)``.
    """

    targets: Tensor

    def of_states(self, states: Tensor) -> SquaredLoss:
        """Return the loss on some of the states; see :class:`Loss`."""
        return SquaredLoss(self.targets.index_select(2, states))

    def gradient(self, values: Tensor, start: int, n_states: int) -> Tensor:
        """Return the gradient of the mean loss; see :class:`Loss`."""
        error = values - self.targets[:, :, start : start + values.shape[2]]
        return _of_counted(error.mul_(2 / values.shape[1]), n_states)

    def parts(self, values: Tensor, start: int, n_states: int) -> tuple[Tensor, Tensor]:
        """Return the mean squared error, and zeros: there is no hard part; see :class:`Loss`."""
        error = values - self.targets[:, :, start : start + values.shape[2]]
        soft = _mean(error.square_().mean(dim=1), n_states)
        return soft, torch.zeros_like(soft)

    def value(self, values: Tensor, n_states: int) -> Tensor:
        """Return the mean loss of each network; see :class:`Loss`."""
        return self.parts(values, 0, n_states)[0]

    def divergence(self, values: Tensor, n_states: int) -> Tensor:
        """Return the mean KL divergence at temperature 1; see :class:`Loss`."""
        n_networks = len(values)
        soft = ImitationLoss.towards(self.targets, torch.ones(n_networks), torch.zeros(n_networks))
        return soft.divergence(values, n_states)


def one_hot_best(values: Tensor) -> Tensor:
    """Return 1 for the first best action of every state and 0 for the others."""
    return torch.zeros_like(values).scatter_(1, values.argmax(dim=1, keepdim=True), 1.0)


def _cross_entropies(values: Tensor, best: Tensor) -> Tensor:
    return -(torch.log_softmax(values, dim=1) * best).sum(dim=1)


def _of_counted(error: Tensor, n_states: int) -> Tensor:
    """Turn gradients of single states into that of their mean, without the padding."""
    if n_states < error.shape[2]:
        error[:, :, n_states:] = 0
    return error.div_(n_states)


def _mean(per_state: Tensor, n_states: int) -> Tensor:
    """Return the mean over the states that count, ``(K,)``."""
    if n_states == per_state.shape[1]:
        return per_state.mean(dim=1)
    per_state[:, n_states:] = 0
    return per_state.sum(dim=1) / n_states
