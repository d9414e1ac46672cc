"""One network imitates another, or two: what distilling, fine-tuning and QAT have in common.

Jobs that can be trained side by side are; the outcome of a job does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import StageError
from engine.learning.course import Course, Look, Method
from engine.learning.training import train
from engine.stages.imitation.config import Calibration, ImitationConfig
from engine.stages.imitation.goal import Goal, calibrate
from engine.stages.networks import Network


@dataclass(frozen=True)
class Job:
    """One network that is to imitate.

    Attributes:
        start: Where it starts.
        references: What it imitates: frozen networks with its inputs and actions.
        config: How it learns.
        shares: Share of each reference, not negative. The loss is the mean of their losses,
            weighted by them; of several, ``alpha`` and ``temp_decay`` must be 1.
        dropout: Share of hidden units dropped while it trains.
        int8: Whether it learns through the int8 codec, and is measured through it.
    """

    start: Network
    references: tuple[Network, ...]
    config: ImitationConfig
    shares: tuple[float, ...] = (1.0,)
    dropout: float = 0.0
    int8: bool = False


@dataclass(frozen=True)
class Imitated:
    """What came out of a job.

    Attributes:
        network: The network of the best epoch, calibrated.
        looks: What was measured on the validation states, at the start and after each epoch.
        best_epoch: Number of the best epoch, from 0; -1 where no epoch was better than the start.
        best_loss: Its validation loss, before calibration.
        calibrated: What was refitted: ``none``, ``value`` or ``output``.
        validation: Rows of the states that validated.
    """

    network: Network
    looks: list[Look]
    best_epoch: int
    best_loss: float
    calibrated: Calibration
    validation: NDArray[np.intp]

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of a sidecar, as AgentFarm names them; one entry per epoch."""
        start, *epochs = self.looks
        return {
            "initial_val_loss": start.loss,
            "initial_action_agreement": start.agreement,
            "initial_prob_similarity": start.similarity,
            "train_losses": [look.train_loss for look in epochs],
            "train_soft_losses": [look.train_soft for look in epochs],
            "train_hard_losses": [look.train_hard for look in epochs],
            "val_losses": [look.loss for look in epochs],
            "action_agreements": [look.agreement for look in epochs],
            "mean_prob_similarities": [look.similarity for look in epochs],
            "best_val_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "epochs_run": len(epochs),
            "calibration": self.calibrated,
        }


def imitate(jobs: Sequence[Job], states: NDArray[np.float32]) -> list[Imitated]:
    """Train all jobs on the same states.

    Args:
        jobs: Networks of any architecture.
        states: Float32 of shape ``(N, n_inputs)``; validation states are split off at random.

    Returns:
        One outcome per job, in their order, whatever is trained beside it.

    Raises:
        StageError: A reference does not fit its job, holds NaN, or there are too few states.
    """
    for job in jobs:
        _check(job, states)
    groups: dict[Any, list[int]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault(_group(job), []).append(number)
    outcomes: dict[int, Imitated] = {}
    for numbers in groups.values():
        trained = _imitate_stack([jobs[number] for number in numbers], states)
        outcomes.update(zip(numbers, trained, strict=True))
    return [outcomes[number] for number in range(len(jobs))]


def split(n_states: int, config: ImitationConfig) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows that train and those that validate: AgentFarm's, for the same seed."""
    n_validation = max(1, int(n_states * config.val_fraction)) if config.val_fraction else 0
    legacy = np.random.RandomState(config.resolved_seed)  # the documented rows
    order = legacy.permutation(n_states)
    if n_validation in (0, n_states):
        return order, order
    return order[:-n_validation], order[-n_validation:]


def _check(job: Job, states: NDArray[np.float32]) -> None:
    spec = job.start.spec
    if len(states) < 2:
        raise StageError(f"at least 2 states are needed to train, not {len(states)}")
    spec.check(job.start.weights, "the network to train")
    if len(job.shares) != len(job.references) or min(job.shares) < 0 or sum(job.shares) <= 0:
        raise StageError(f"shares of {len(job.references)} references cannot be {job.shares}")
    config = job.config
    # The mean of several softmaxes stands for all of them at one temperature, and has one best
    # action where they may have two.
    is_plain = config.loss_fn == "mse" or config.alpha == config.temp_decay == 1
    if len(job.references) > 1 and not is_plain:
        raise StageError(
            "two networks are imitated with alpha 1 and temp_decay 1 only, not with "
            f"alpha {config.alpha:g} and temp_decay {config.temp_decay:g}; imitate one of them"
        )
    for reference in job.references:
        found = reference.spec
        found.check(reference.weights, "the network to imitate")
        if (found.n_inputs, found.n_actions) != (spec.n_inputs, spec.n_actions):
            raise StageError(
                f"the network to train takes {spec.n_inputs} numbers and has {spec.n_actions} "
                f"actions, but the one to imitate {found.n_inputs} and {found.n_actions}"
            )


def _group(job: Job) -> Any:
    """Return what jobs must have in common to be trained in one stack."""
    config = replace(job.config, learning_rate=1.0, temperature=1.0, alpha=1.0)
    options = tuple(sorted(config.optimizer_kwargs.items()))
    return (
        job.start.spec,
        job.dropout,
        job.int8,
        repr(replace(config, optimizer_kwargs={})),
        options,
    )


def _imitate_stack(jobs: Sequence[Job], states: NDArray[np.float32]) -> list[Imitated]:
    spec, config = jobs[0].start.spec, jobs[0].config
    train_rows, validation_rows = split(len(states), config)
    goals = [Goal(job.references, job.shares, job.config, states) for job in jobs]
    by_action = np.stack([goal.targets.T for goal in goals])  # (K, A, N)
    is_kl = config.loss_fn == "kl"
    course = Course(
        train_states=states[train_rows],
        train_targets=np.ascontiguousarray(by_action[:, :, train_rows]),
        validation_states=states[validation_rows],
        validation_targets=np.ascontiguousarray(by_action[:, :, validation_rows]),
        steps=1,
        batch_size=min(config.batch_size, len(train_rows)),  # batches are padded to this size
        learning_rates=np.array([job.config.learning_rate for job in jobs], np.float32),
        temperatures=np.array([job.config.temperature for job in jobs], np.float32),
        hard_weights=np.array([1 - job.config.alpha if is_kl else 0 for job in jobs], np.float32),
        int8_in_loop=jobs[0].int8,
        validation_every=1,
        order=(config.resolved_seed,),
        method=Method(
            loss=config.loss_fn,
            optimizer=config.optimizer,
            optimizer_options=config.optimizer_kwargs,
            schedule="constant",
            plateau_patience=config.lr_schedule_patience,
            plateau_factor=config.lr_schedule_factor,
            early_stopping_patience=config.early_stopping_patience,
            max_grad_norm=config.max_grad_norm,
            dropout=jobs[0].dropout,
            temperature_decay=config.temp_decay,
            keep_short_batch=True,
        ),
        record=True,
    )
    per_epoch = course.steps_per_epoch
    course = replace(course, steps=config.epochs * per_epoch, validation_every=per_epoch)
    torch.set_num_threads(1)  # thread counts may change the bytes
    starts = [goal.scaled(job.start.weights) for goal, job in zip(goals, jobs, strict=True)]
    trained = train(spec, starts, course)
    outcomes = []
    for k, (goal, job) in enumerate(zip(goals, jobs, strict=True)):
        weights, calibrated = calibrate(
            spec,
            trained.weights[k],
            goal.wanted[train_rows],
            course.of_networks(slice(k, k + 1)),
            job.config.calibration,
        )
        outcomes.append(
            Imitated(
                network=Network(spec, goal.unscaled(weights)),
                looks=trained.history[k],
                best_epoch=int(trained.best_look[k]) - 1,
                best_loss=float(trained.loss[k]),
                calibrated=calibrated,
                validation=validation_rows,
            )
        )
    return outcomes
