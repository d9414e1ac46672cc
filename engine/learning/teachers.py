"""Teachers: the big float networks that students imitate, trained here or read from files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.config import RunConfig, TeacherTrainingConfig
from engine.errors import TeacherError
from engine.learning.checkpoints import load_network
from engine.learning.teacher_training import Checkpoint, Learner, n_updates, train_stack
from engine.playing.environments import TaskSpec
from engine.seeding import Purpose, episode_seeds, key, stream
from populations.network import NetworkSpec, Weights

OnProgress = Callable[[str, int, float], None]
"""Called after each checkpoint with a teacher's name, its steps so far, and the mean return."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained Q-network.

    Attributes:
        name: ``teacher-0`` and so on, in the order of the budgets or files.
        spec: Its architecture.
        weights: Its float32 tensors by name.
        source: ``trained``, or the path of its file.
        steps: Environment steps it was trained for; 0 where a file does not tell.
        checkpoint_step: Environment steps after which ``weights`` were taken.
        checkpoint_return: Mean greedy return on the checkpoint episodes, which picked these
            weights and therefore flatters them; NaN for a file.
    """

    name: str
    spec: NetworkSpec
    weights: Weights
    source: str = "trained"
    steps: int = 0
    checkpoint_step: int = 0
    checkpoint_return: float = math.nan


def train_teachers(
    config: RunConfig,
    task: TaskSpec,
    on_progress: OnProgress | None = None,
    on_update: Callable[[], None] | None = None,
) -> list[Teacher]:
    """Train all teachers of a run in one stack and keep the best checkpoint of each.

    Learning rate and exploration follow the longest budget, so a teacher with a smaller one is
    the longest-trained kind of teacher stopped early: weaker, and not merely faster. A budget is
    rounded down to whole rollouts of ``lanes * rollout`` steps, but never to none. Nothing else
    of one teacher depends on another: each has its own initial weights, episodes and exploration.
    (Rounding may, see :func:`engine.learning.teacher_training.train_stack`.)

    Args:
        config: The run.
        task: The task of ``config.environment``.
        on_progress: Called after each checkpoint.
        on_update: Called after each update; may raise to stop.

    Returns:
        One teacher per budget of ``config.teachers.training.steps``, in that order.
    """
    settings = config.teachers.training
    spec = NetworkSpec(
        task.observation_shape, config.teachers.hidden, task.n_actions, config.teachers.norm
    )
    longest = max(n_updates(settings, budget) for budget in settings.steps)

    def tell(teacher: int, checkpoint: Checkpoint) -> None:
        if on_progress is not None:
            on_progress(_name(teacher), checkpoint.step, checkpoint.score)

    best = train_stack(
        config.environment,
        spec,
        settings,
        [_learner(config, spec, i) for i in range(len(settings.steps))],
        stream(key(config.seed, Purpose.MINIBATCHES)),
        lambda update: _epsilon(settings, update / longest),
        on_checkpoint=tell,
        on_update=on_update,
    )
    return [
        Teacher(
            _name(i),
            spec,
            checkpoint.weights,
            steps=n_updates(settings, budget) * settings.lanes * settings.rollout,
            checkpoint_step=checkpoint.step,
            checkpoint_return=checkpoint.score,
        )
        for i, (budget, checkpoint) in enumerate(zip(settings.steps, best, strict=True))
    ]


def load_teachers(
    files: Sequence[str | Path], task: TaskSpec, allow_unsafe: bool = False
) -> list[Teacher]:
    """Read teachers that were trained elsewhere.

    Room for Dropout in a file's numbering makes no difference; the teachers returned have none.

    Args:
        files: Their paths.
        task: The task that they are to play.
        allow_unsafe: Whether a file may run code while it is loaded.

    Returns:
        One teacher per file, in that order, all of one architecture.

    Raises:
        TeacherError: A file cannot be read, does not fit the task, or differs from the first one.
    """
    teachers: list[Teacher] = []
    for i, file in enumerate(files):
        found, tensors = load_network(Path(file), allow_unsafe)
        n_inputs = math.prod(task.observation_shape)
        if (found.n_inputs, found.n_actions) != (n_inputs, task.n_actions):
            raise TeacherError(
                f"{file}: {task.id} has observations of {n_inputs} numbers and {task.n_actions} "
                f"actions, but this network takes {found.n_inputs} numbers and has "
                f"{found.n_actions} actions"
            )
        spec = replace(found, observation_shape=task.observation_shape, dropout_slots=False)
        if teachers and spec != teachers[0].spec:
            raise TeacherError(
                "teachers must share one architecture, but "
                f"{files[0]} has {_describe(teachers[0].spec)} and {file} has {_describe(spec)}"
            )
        weights = dict(zip(spec.shapes, (tensors[name] for name in found.shapes), strict=True))
        teachers.append(Teacher(_name(i), spec, weights, source=str(file)))
    return teachers


def _describe(spec: NetworkSpec) -> str:
    norm = "LayerNorm" if spec.norm == "layer" else "no normalization"
    return f"hidden widths {list(spec.hidden)} with {norm}"


def _initial(run_seed: int, spec: NetworkSpec, teacher: int) -> dict[str, NDArray[np.float32]]:
    """Return random weights with torch's initial distribution of a Linear layer.

    Weights and biases are uniform in ``+-1 / sqrt(n_in)``; a normalization starts as identity.
    """
    rng = stream(key(run_seed, Purpose.TEACHER_INIT, teacher))
    weights: dict[str, NDArray[np.float32]] = {}
    for block in spec.blocks:
        bound = 1 / math.sqrt(block.n_in)
        for name in (block.weight, block.bias):
            weights[name] = rng.uniform(-bound, bound, spec.shapes[name]).astype(np.float32)
        if block.norm is not None:
            weights[f"{block.norm}.weight"] = np.ones(block.n_out, dtype=np.float32)
            weights[f"{block.norm}.bias"] = np.zeros(block.n_out, dtype=np.float32)
    return weights


def _epsilon(settings: TeacherTrainingConfig, spent: float) -> float:
    """Return the exploration once a share ``spent`` of the longest budget is used."""
    fall = min(1.0, spent / settings.exploration_fraction) if settings.exploration_fraction else 1.0
    return settings.epsilon_start + fall * (settings.epsilon_end - settings.epsilon_start)


def _learner(config: RunConfig, spec: NetworkSpec, teacher: int) -> Learner:
    """Return a teacher before its first step."""
    settings = config.teachers.training
    checkpoints = key(config.seed, Purpose.TEACHER_CHECKPOINTS, teacher)
    return Learner(
        start=_initial(config.seed, spec, teacher),
        n_steps=settings.steps[teacher],
        play=key(config.seed, Purpose.TEACHER_TRAINING, teacher),
        checkpoint_seeds=episode_seeds(checkpoints, settings.checkpoint_episodes),
    )


def _name(teacher: int) -> str:
    return f"teacher-{teacher}"
