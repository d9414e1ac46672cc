"""The documented comparison of distillation modes: one teacher, three shares of the soft labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import StageError
from engine.stages.imitation.config import ImitationConfig
from engine.stages.imitation.jobs import Imitated, Job, imitate
from engine.stages.networks import (
    STUDENT_DROPOUT,
    Network,
    initial_weights,
    student_spec,
    teacher_spec,
)
from engine.stages.state_sets import synthetic_heldout, synthetic_states
from engine.stages.validation.fidelity import compare, probability_similarity
from engine.stages.validation.role_checks import all_q_values

MODES = {"hard_only": 0.0, "blended": 0.7, "soft_only": 1.0}
"""Share of the KL divergence in each mode; the rest is the cross-entropy."""
STATES_SEED, STUDENT_SEED, TRAINING_SEED = 10_000, 20_000, 30_000
"""What is added to the seed for the states, the untrained student and its training."""
HELD_OUT = 20_000
"""States that nothing was trained or chosen on; the interval of an agreement is below a point."""


@dataclass(frozen=True)
class ComparisonSettings:
    """What is compared; the defaults are the documented ones.

    Attributes:
        input_dim: Numbers in one state.
        output_dim: Number of actions, at least 2.
        parent_hidden: Units in each hidden layer of the teacher.
        n_states: Synthetic states to train and validate on, at least 2.
        temperature: Softmax temperature.
        epochs: Passes over the states.
        batch_size: States per step.
        lr: Learning rate.
        val_fraction: Share of the states that validates.

    Raises:
        StageError: A number is too small; the ranges of the training are checked when it begins.
    """

    input_dim: int = 8
    output_dim: int = 4
    parent_hidden: int = 64
    n_states: int = 5000
    temperature: float = 3.0
    epochs: int = 25
    batch_size: int = 64
    lr: float = 1e-3
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a comparison of nothing."""
        if self.output_dim < 2:
            raise StageError(f"--output-dim must be at least 2, not {self.output_dim}")
        if self.n_states < 2:
            raise StageError(f"--n-states must be at least 2, not {self.n_states}")


def compare_modes(settings: ComparisonSettings, seed: int = 42) -> dict[str, Any]:
    """Distill one random teacher in every mode and compare the students.

    Teacher, states and untrained student are the same in all modes, and for a seed those of
    AgentFarm's script. Nothing is calibrated after training.

    Args:
        settings: Sizes and training.
        seed: Of everything.

    Returns:
        ``seed_base``, ``hyperparams`` and ``runs``, one per mode: losses and figures of the last
        epoch on the validation states, as documented, and those of the kept network on 20,000
        held-out states.

    Raises:
        StageError: A setting is out of its range.
    """
    spec = teacher_spec(settings.input_dim, settings.output_dim, settings.parent_hidden)
    configs = {mode: _config(settings, alpha, seed) for mode, alpha in MODES.items()}
    teacher = Network(spec, initial_weights(spec, seed))
    small = student_spec(spec)
    start = Network(small, initial_weights(small, seed + STUDENT_SEED))
    states = synthetic_states(settings.n_states, settings.input_dim, seed + STATES_SEED)
    heldout = synthetic_heldout(HELD_OUT, settings.input_dim, seed + STATES_SEED)
    jobs = [Job(start, (teacher,), config, dropout=STUDENT_DROPOUT) for config in configs.values()]
    outcomes = dict(zip(MODES, imitate(jobs, states), strict=True))
    values = all_q_values(
        {"": teacher} | {mode: outcome.network for mode, outcome in outcomes.items()}, heldout
    )
    runs = []
    for mode, outcome in outcomes.items():
        fidelity = compare(values[""], values[mode])
        runs.append(
            {
                "mode": mode,
                "alpha": MODES[mode],
                **_last_epoch(outcome),
                "heldout_action_agreement": fidelity["action_agreement"],
                "heldout_action_agreement_ci95": fidelity["action_agreement_ci95"],
                "heldout_prob_similarity": probability_similarity(
                    values[""], values[mode], settings.temperature
                ),
            }
        )
    return {
        "seed_base": seed,
        "hyperparams": asdict(settings) | {"loss_fn": "kl"},
        "heldout_states": HELD_OUT,
        "runs": runs,
    }


def _config(settings: ComparisonSettings, alpha: float, seed: int) -> ImitationConfig:
    return ImitationConfig(
        temperature=settings.temperature,
        alpha=alpha,
        learning_rate=settings.lr,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        val_fraction=settings.val_fraction,
        seed=seed + TRAINING_SEED,
        calibration="none",
    )


def _last_epoch(outcome: Imitated) -> dict[str, Any]:
    last = outcome.looks[-1]
    return {
        "best_val_loss": outcome.best_loss,
        "best_epoch": outcome.best_epoch,
        "final_action_agreement": last.agreement,
        "final_mean_prob_similarity": last.similarity,
        "final_train_loss": last.train_loss,
        "final_train_soft_loss": last.train_soft,
        "final_train_hard_loss": last.train_hard,
    }
