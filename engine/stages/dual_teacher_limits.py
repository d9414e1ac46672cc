"""What the canonical run asks of its students and of its child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.stages.thresholds import Check, RecombinationThresholds, Thresholds

MSE = "mse"
CENTERED_MSE = "centered_mse"


@dataclass(frozen=True)
class StudentLimits(Thresholds):
    """What a student must keep of its teacher; the constants of AgentFarm's script."""

    min_action_agreement: float = 0.80
    """Least share of states with the same best action."""
    max_kl_divergence: float = 1.0
    """Greatest ``T^2 KL(teacher || student)`` at the temperature T of the distillation."""


@dataclass(frozen=True)
class ChildLimits(RecombinationThresholds):
    """What the child must keep of each parent; defaults of AgentFarm's script.

    The squared error is that of Q-values less their mean over actions, of parent and child alike.
    A child has two parents, and where their values differ it cannot have those of both: of the
    child's errors to A and to B, one is at least a quarter of the parents' error to each other.
    Two good CartPole parents differ by 40 to 700 in the mean square, all but 2 or 3 of it in what
    both actions have in common, which no action depends on.
    """

    min_action_agreement: float = 0.50
    """Least share of states with the same best action as a parent."""
    max_kl_divergence: float = 2.0
    """Greatest mean KL divergence from a parent, in nats at temperature 1."""
    max_mse: float = 10.0
    """Greatest mean squared error of Q-values less their mean over actions."""
    min_cosine_similarity: float = 0.50
    """Least mean cosine of the vectors of Q-values."""

    def checks(self, metrics: Mapping[str, Any], prefix: str = "") -> list[Check]:
        """Hold metrics against the limits; see :meth:`Thresholds.checks`."""
        checks = super().checks({**metrics, MSE: metrics.get(CENTERED_MSE)}, prefix)
        return [
            replace(check, name=prefix + CENTERED_MSE) if check.name == prefix + MSE else check
            for check in checks
        ]


def about_mse(parents_mse: float) -> dict[str, Any]:
    """Return what a report says of the limit on the squared error.

    Args:
        parents_mse: Mean squared error between the Q-values of both parents.
    """
    return {
        "metric": CENTERED_MSE,
        "reason": "the parents differ in what all actions have in common; no child has the "
        "values of both",
        "parents_mse": parents_mse,
        # |c - a|^2 + |c - b|^2 >= |a - b|^2 / 2, so the larger one is at least half of that.
        "least_mse_of_any_child": parents_mse / 4,
    }
