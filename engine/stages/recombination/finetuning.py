"""Fine-tuning: a child of a crossover learns to imitate one of its parents, or two networks.

The functions here are the same for one child and for the many of a search, which are trained side
by side; nothing of a child depends on its neighbors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StageError
from engine.stages.imitation.jobs import Imitated, Job, imitate
from engine.stages.networks import Network
from engine.stages.quantization.weights import dequantized, quantized
from engine.stages.recombination.finetuning_config import FineTuningConfig
from engine.stages.validation.fidelity import compare, probability_similarity
from engine.stages.validation.role_checks import all_q_values
from populations.genome import Genome, Lineage

REFERENCES = ("reference_a", "reference_b")
CHILD = Lineage("child", 0, 0)


@dataclass(frozen=True)
class Child:
    """A child that is to be fine-tuned.

    Attributes:
        start: The child as crossover made it.
        references: The one or two networks to imitate, of any widths.
        config: How it learns.
        shares: Share of each reference in the loss, not negative.
        dropout: Share of hidden units dropped while it trains; its parents'.
    """

    start: Network
    references: tuple[Network, ...]
    config: FineTuningConfig
    shares: tuple[float, ...] = (1.0,)
    dropout: float = 0.0


@dataclass(frozen=True)
class FineTuned:
    """What became of a child.

    Attributes:
        child: The child before.
        network: The float32 child after: that of the best epoch, or the start, calibrated.
        outcome: How it learned.
        states: What it was trained on, ``(N, n_inputs)``.
    """

    child: Child
    network: Network
    outcome: Imitated
    states: NDArray[np.float32]

    @cached_property
    def genome(self) -> Genome:
        """Its int8 export, its output layer refitted on the training states."""
        return quantized(self.network, self.states, CHILD)

    @property
    def int8(self) -> Network:
        """The int8 child, dequantized."""
        return dequantized(self.genome)

    @property
    def config_record(self) -> dict[str, Any]:
        """The settings, for a sidecar."""
        return self.child.config.record(len(self.outcome.looks) - 1)

    def metrics(self) -> dict[str, Any]:
        """Return metrics on the validation states under AgentFarm's names, before and after.

        ``final_*`` are those of the epoch that was kept, before calibration. ``measured_as`` says
        whether the child was measured through the int8 codec. Two references count as the one
        that is imitated: the weighted mean of their probabilities.
        """
        looks = self.outcome.looks
        kept = looks[self.outcome.best_epoch + 1]
        return {
            **self.outcome.metrics(),
            "final_action_agreement": kept.agreement,
            "final_prob_similarity": kept.similarity,
            "early_stopped": len(looks) - 1 < self.child.config.epochs,
            "measured_as": "int8" if self.child.config.is_int8_in_loop else "float32",
        }


def fine_tune(children: Sequence[Child], states: NDArray[np.float32]) -> list[FineTuned]:
    """Fine-tune children, those side by side that can be.

    Args:
        children: Networks of any architecture.
        states: Float32 of shape ``(N, n_inputs)``; validation states are split off at random.

    Returns:
        One outcome per child, in their order, whatever is trained beside it.

    Raises:
        StageError: A reference does not fit its child, or there are too few states.
        GenomeValueError: A child or reference holds NaN or infinity.
    """
    jobs = []
    for child in children:
        if not 1 <= len(child.references) <= len(REFERENCES):
            raise StageError(f"a child imitates one network or two, not {len(child.references)}")
        job = Job(
            child.start,
            child.references,
            child.config,
            child.shares,
            child.dropout,
            child.config.is_int8_in_loop,
        )
        jobs.append(job)
    return [
        FineTuned(child, outcome.network, outcome, states)
        for child, outcome in zip(children, imitate(jobs, states), strict=True)
    ]


def compare_with_references(
    tuned: FineTuned, states: NDArray[np.float32], k_values: Sequence[int] = (1, 2, 3)
) -> dict[str, Any]:
    """Compare a child with each of its references, before and after, as float32 and as int8.

    Args:
        tuned: The child.
        states: States that it was not trained on, ``(N, n_inputs)``.
        k_values: Values of k of the top-k agreements.

    Returns:
        By reference (``reference_a``, ``reference_b``) and stage (``before``, ``after``, ``int8``)
        the metrics of :func:`engine.stages.validation.fidelity.compare`, ``prob_similarity``, and
        ``int8_retention``, the int8 child's agreement as a share of the float32 child's, over all
        references.
    """
    stages = {"before": tuned.child.start, "after": tuned.network, "int8": tuned.int8}
    references = dict(zip(REFERENCES, tuned.child.references, strict=False))
    values = all_q_values(stages | references, states)
    temperature = tuned.child.config.temperature
    comparisons: dict[str, Any] = {
        name: {
            stage: {
                **compare(values[name], values[stage], k_values),
                "prob_similarity": probability_similarity(values[name], values[stage], temperature),
            }
            for stage in stages
        }
        for name in references
    }
    after, int8 = (
        sum(stages_of[stage]["action_agreement"] for stages_of in comparisons.values())
        for stage in ("after", "int8")
    )
    return {**comparisons, "int8_retention": int8 / after if after > 0 else float("nan")}
