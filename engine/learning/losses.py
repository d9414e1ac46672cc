"""The imitation loss of a stack of networks, as the gradient that a backward pass starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        best = None
        if bool((hard_weight > 0).any()):
            winners = targets.argmax(dim=1, keepdim=True)
            best = torch.zeros_like(targets).scatter_(1, winners, 1.0)
        return cls(
            temperature=by_network,
            hard_weight=hard_weight.view(-1, 1, 1),
            probabilities=torch.softmax(targets / by_network, dim=1),
            best=best,
        )

    def of_states(self, states: Tensor) -> ImitationLoss:
        """Return the loss on some of the states, given by index and in that order."""
        return ImitationLoss(
            self.temperature,
            self.hard_weight,
            self.probabilities.index_select(2, states),
            None if self.best is None else self.best.index_select(2, states),
        )

    def gradient(self, values: Tensor, start: int) -> Tensor:
        """Return the gradient of the mean loss with respect to ``values``.

        Args:
            values: Q-values, shape ``(K, n_actions, B)``, of the states ``start ... start + B``.
            start: First of these states.

        Returns:
            Shape ``(K, n_actions, B)``.
        """
        n_states = values.shape[2]
        wanted = self.probabilities[:, :, start : start + n_states]
        error = torch.softmax(values / self.temperature, dim=1).sub_(wanted)
        error.mul_(self.temperature)  # T^2 from the loss, 1 / T from the softmax
        if self.best is not None:
            hard = torch.softmax(values, dim=1).sub_(self.best[:, :, start : start + n_states])
            error.lerp_(hard, self.hard_weight.expand_as(error))
        return error.div_(n_states)

    def value(self, values: Tensor) -> Tensor:
        """Return the mean loss of each network over all states, shape ``(K,)``."""
        loss = self.divergence(values) * self.temperature.view(-1) ** 2
        if self.best is not None:
            cross = -(torch.log_softmax(values, dim=1) * self.best).sum(dim=1).mean(dim=1)
            loss = torch.lerp(loss, cross, self.hard_weight.view(-1))
        return loss

    def divergence(self, values: Tensor) -> Tensor:
        """Return the mean KL divergence of each network from its target in nats, shape ``(K,)``."""
        log_q = torch.log_softmax(values / self.temperature, dim=1)
        p = self.probabilities
        return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean(dim=1)
