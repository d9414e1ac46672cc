"""What each network of a batch imitates: teachers weighted by its plan, or its fitter parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import LearningConfig
from engine.learning.course import Course
from engine.learning.repair import refit_output
from engine.learning.training import train
from populations.network import NetworkSpec, Weights
from populations.plans import FineTune


@dataclass(frozen=True)
class Lessons:
    """States and the teachers' values on them, computed once per run.

    Attributes:
        train_states: Float32 of shape ``(N, n_inputs)``.
        train_targets: Values of the T teachers, float32 of shape ``(T, n_actions, N)``.
        validation_states: Float32 of shape ``(M, n_inputs)``, never trained on.
        validation_targets: Float32 of shape ``(T, n_actions, M)``.
    """

    train_states: NDArray[np.float32]
    train_targets: NDArray[np.float32]
    validation_states: NDArray[np.float32]
    validation_targets: NDArray[np.float32]


@dataclass(frozen=True)
class Pupil:
    """One network that is to be trained.

    Attributes:
        weights: Where it starts.
        finetune: How it is trained; all pupils of one call take the same number of steps.
        parent_targets: Values of its fitter parent on the training and the validation states,
            ``(n_actions, N)`` and ``(n_actions, M)``; needed for the target ``better_parent``.
    """

    weights: Weights
    finetune: FineTune
    parent_targets: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


def imitate(
    spec: NetworkSpec,
    pupils: Sequence[Pupil],
    lessons: Lessons,
    learning: LearningConfig,
    order: tuple[int, ...],
) -> tuple[list[dict[str, NDArray[np.float32]]], NDArray[np.float32]]:
    """Repair and train networks side by side.

    Args:
        spec: Architecture of all pupils.
        pupils: The networks; each one's outcome is independent of the others.
        lessons: States and teacher values.
        learning: Settings of the loop.
        order: Key of the minibatches' order, shared by all pupils.

    Returns:
        The trained weights, and the KL divergence of each from its target, ``(K,)`` in nats.
    """
    train_targets = np.stack([_target(pupil, lessons.train_targets, 0) for pupil in pupils])
    validation = np.stack([_target(pupil, lessons.validation_targets, 1) for pupil in pupils])
    weights = [dict(pupil.weights) for pupil in pupils]
    repaired = [k for k, pupil in enumerate(pupils) if pupil.finetune.repair]
    if repaired:
        refitted = refit_output(
            spec,
            [weights[k] for k in repaired],
            lessons.train_states,
            train_targets[repaired],
            learning.ridge,
        )
        for k, network in zip(repaired, refitted, strict=True):
            weights[k] = network
    recipes = [pupil.finetune for pupil in pupils]
    course = Course(
        train_states=lessons.train_states,
        train_targets=train_targets,
        validation_states=lessons.validation_states,
        validation_targets=validation,
        steps=recipes[0].steps,
        batch_size=learning.batch_size,
        learning_rates=np.array([recipe.learning_rate for recipe in recipes], np.float32),
        temperatures=np.array([recipe.temperature for recipe in recipes], np.float32),
        hard_weights=np.array([recipe.hard_weight for recipe in recipes], np.float32),
        int8_in_loop=learning.int8_in_loop,
        validation_every=learning.validation_every,
        order=order,
    )
    trained = train(spec, weights, course)
    return trained.weights, trained.divergence


def _target(pupil: Pupil, teachers: NDArray[np.float32], part: int) -> NDArray[np.float32]:
    """Return the values that a pupil imitates, ``(n_actions, N)``."""
    if pupil.finetune.target == "better_parent":
        if pupil.parent_targets is None:
            raise ValueError("the target better_parent needs the values of a parent")
        return pupil.parent_targets[part]
    weighted: NDArray[np.float32] = np.zeros_like(teachers[0])
    for weight, values in zip(pupil.finetune.teacher_weights, teachers, strict=True):
        weighted += np.float32(weight) * values
    return weighted
