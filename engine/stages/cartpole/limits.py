"""What the canonical run asks of its students and of its child."""

from __future__ import annotations

from dataclasses import dataclass

from engine.stages.validation.thresholds import RecombinationThresholds, Thresholds


@dataclass(frozen=True)
class StudentLimits(Thresholds):
    """What a student must keep of its teacher; the constants of AgentFarm's script."""

    min_action_agreement: float = 0.80
    """Least share of states with the same best action."""
    max_distill_kl: float = 1.0
    """Greatest ``T^2 KL(teacher || student)`` at the temperature T of the distillation."""


@dataclass(frozen=True)
class ChildLimits(RecombinationThresholds):
    """What the child must keep of each parent; defaults of AgentFarm's script."""

    min_action_agreement: float = 0.50
    """Least share of states with the same best action as a parent."""
    max_kl_divergence: float = 2.0
    """Greatest mean KL divergence from a parent, in nats at temperature 1."""
    max_mse: float = 10.0
    """Greatest mean squared error of Q-values less their mean over actions."""
    min_cosine_similarity: float = 0.50
    """Least mean cosine of the vectors of Q-values."""
