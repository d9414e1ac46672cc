"""Fine-tuning a child towards two teachers: variants side by side, the best player, and controls.

A network that takes after the mean of two good players may play badly, and agreement does not tell.
So the documented fine-tuning is tried together with some neighbors, all in one stack, and whichever
plays best is kept: the documented one unless another is better. A copy of student A and a random
network are fine-tuned in the same stack, with the same choice, to tell what crossover is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StageError
from engine.stages.cartpole.parent_settings import ENVIRONMENT
from engine.stages.networks import Network
from engine.stages.quantization.weights import dequantized, quantized
from engine.stages.recombination.finetuning import Child, FineTuned, fine_tune
from engine.stages.recombination.finetuning_config import FineTuningConfig
from engine.stages.search.play import episode_returns
from engine.stages.state_sets import States
from engine.stages.validation.fidelity import compare
from engine.stages.validation.role_checks import all_q_values

CHILD, COPY, RANDOM = "child", "student_A_finetuned", "random_finetuned"
MOST_VARIANTS = 6
COOLER = 3.0
"""What the temperature is divided by in every other variant."""


@dataclass(frozen=True)
class Variant:
    """One way to fine-tune.

    Attributes:
        temperature: Softmax temperature of both teachers.
        weight_a: Share of teacher A in the loss; the rest is that of teacher B.
    """

    temperature: float
    weight_a: float


@dataclass(frozen=True)
class Tuned:
    """A network after fine-tuning.

    Attributes:
        variant: The variant that was kept.
        outcome: The network of this variant, before and after.
        tried: Of each variant its settings, validation loss, and mean returns on the episodes that
            chose: of the float network and of the int8 one.
    """

    variant: Variant
    outcome: FineTuned
    tried: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Tuning:
    """How networks are fine-tuned.

    Attributes:
        teachers: Both teachers, A first.
        config: The documented fine-tuning.
        weight_a: Share of teacher A in it.
        n_variants: How many variants are tried, the documented one among them.
        episodes: Episodes that choose between them; none of those in reports.
        seed: What these are drawn from.
        dropout: Share of hidden units dropped while training.
        calibration: States on which int8 output layers are refitted, ``(N, n_inputs)``.
    """

    teachers: tuple[Network, Network]
    config: FineTuningConfig
    weight_a: float
    n_variants: int
    episodes: int
    seed: int
    dropout: float
    calibration: States

    def __post_init__(self) -> None:
        """Check the ranges that nobody else does."""
        if not 0 <= self.weight_a <= 1:
            raise StageError(
                f"--finetune-teacher-weight-a must be from 0 to 1, not {self.weight_a}"
            )
        if not 1 <= self.n_variants <= MOST_VARIANTS:
            raise StageError(
                f"--finetune-variants must be from 1 to {MOST_VARIANTS}, not {self.n_variants}"
            )

    def variants(self) -> list[Variant]:
        """Return the variants: as documented, halfway to teacher A, halfway to teacher B; cooler.

        Where a teacher has all the weight already, halfway there is no other variant.
        """
        weights = (self.weight_a, (1 + self.weight_a) / 2, self.weight_a / 2)
        grid = [
            Variant(self.config.temperature / cooler, weight)
            for weight in dict.fromkeys(weights)
            for cooler in (1.0, COOLER)
        ]
        return grid[: self.n_variants]


def tune(starts: Mapping[str, Network], tuning: Tuning, states: States) -> dict[str, Tuned]:
    """Fine-tune networks alike, and keep of each the variant that plays best.

    A variant is as good as the worse of its float and its int8 network; the first of equals is
    kept. What becomes of a network does not depend on the others.

    Args:
        starts: Networks of one architecture, by name.
        tuning: How.
        states: What they train on, ``(N, n_inputs)``.

    Raises:
        StageError: Networks or states do not fit each other.
    """
    variants = tuning.variants()
    children = [
        Child(
            start,
            tuning.teachers,
            replace(tuning.config, temperature=variant.temperature),
            (variant.weight_a, 1 - variant.weight_a),
            tuning.dropout,
        )
        for start in starts.values()
        for variant in variants
    ]
    outcomes = fine_tune(children, states)
    returns = _returns(outcomes, tuning)  # (n_starts * n_variants, 2)
    tuned = {}
    for number, name in enumerate(starts):
        rows = slice(number * len(variants), (number + 1) * len(variants))
        best = int(returns[rows].min(axis=1).argmax())
        tried = [
            {
                "temperature": variant.temperature,
                "teacher_weight_a": variant.weight_a,
                "best_val_loss": outcome.outcome.best_loss,
                "mean_return": float(played[0]),
                "int8_mean_return": float(played[1]),
                "kept": row == best,
            }
            for row, (variant, outcome, played) in enumerate(
                zip(variants, outcomes[rows], returns[rows], strict=True)
            )
        ]
        tuned[name] = Tuned(variants[best], outcomes[rows][best], tried)
    return tuned


def dual_metrics(network: Network, tuning: Tuning, states: States) -> dict[str, float]:
    """Return how close a network is to both teachers, under AgentFarm's names.

    ``kl_a`` and ``kl_b`` are the terms of the loss, ``T^2 KL(teacher || network)`` at temperature
    T, and ``dual_loss`` is their mean, weighted as documented.
    """
    a, b = tuning.teachers
    values = all_q_values({"a": a, "b": b, "network": network}, states)
    temperature = tuning.config.temperature
    metrics: dict[str, float] = {}
    for label in ("a", "b"):
        metrics[f"agree_{label}"] = compare(values[label], values["network"])["action_agreement"]
        metrics[f"kl_{label}"] = scaled_kl(values[label], values["network"], temperature)
    metrics["dual_loss"] = (
        tuning.weight_a * metrics["kl_a"] + (1 - tuning.weight_a) * metrics["kl_b"]
    )
    return metrics


def scaled_kl(reference: States, query: States, temperature: float) -> float:
    """Return ``T^2 KL(softmax(reference / T) || softmax(query / T))``, mean over rows, in nats.

    Args:
        reference: Q-values ``(N, n_actions)``.
        query: Q-values of the same shape.
        temperature: T.
    """
    t = np.float32(temperature)
    return float(temperature**2 * compare(reference / t, query / t)["kl_divergence"])


def _returns(outcomes: Sequence[FineTuned], tuning: Tuning) -> NDArray[np.float64]:
    """Return mean returns ``(len(outcomes), 2)``, of the float networks and of the int8 ones."""
    networks = [
        network
        for outcome in outcomes
        for network in (
            outcome.network,
            dequantized(quantized(outcome.network, tuning.calibration)),
        )
    ]
    played = episode_returns(networks, ENVIRONMENT, tuning.episodes, tuning.seed)
    means: NDArray[np.float64] = played.mean(axis=1).reshape(-1, 2)
    return means
