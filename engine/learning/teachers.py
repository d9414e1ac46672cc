"""Teachers: the big float networks that students imitate, trained here or read from files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import RunConfig, TeacherTrainingConfig
from engine.errors import TeacherError
from engine.learning.checkpoints import load_network
from engine.learning.pqn import PQN
from engine.learning.qnetwork import StackedQNetwork
from engine.playing.environments import TaskSpec, make_lanes
from engine.playing.evaluation import evaluate
from engine.playing.policies import StackedPolicy
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

    Args:
        config: The run.
        task: The task of ``config.environment``.
        on_progress: Called after each checkpoint.
        on_update: Called after each update; may raise to stop.

    Returns:
        One teacher per budget of ``config.teachers.training.steps``, in that order.
    """
    torch.set_num_threads(1)  # thread counts may change the bytes
    settings = config.teachers.training
    spec = NetworkSpec(
        task.observation_shape, config.teachers.hidden, task.n_actions, config.teachers.norm
    )
    steps_per_update = settings.lanes * settings.rollout
    n_updates = [max(1, budget // steps_per_update) for budget in settings.steps]
    longest = max(n_updates)
    active = list(range(len(n_updates)))
    best: dict[int, Teacher] = {}
    lanes = make_lanes(config.environment, len(active) * settings.lanes)
    try:
        learner = PQN(
            StackedQNetwork.from_weights(spec, [_initial(config.seed, spec, i) for i in active]),
            settings,
            lanes,
            [stream(key(config.seed, Purpose.TEACHER_TRAINING, i)) for i in active],
            stream(key(config.seed, Purpose.MINIBATCHES)),
        )
        for update in range(1, longest + 1):
            spent = (update - 1) / longest
            rollout = learner.rollout(_epsilon(settings, spent))
            learner.learn(rollout, settings.learning_rate * (1 - spent))
            due = [i for i in active if _is_checkpoint(update, n_updates[i], settings.checkpoints)]
            weights = learner.weights() if due else []
            for i in due:
                candidate = _checkpoint(config, spec, i, weights[active.index(i)])
                candidate = replace(
                    candidate,
                    steps=n_updates[i] * steps_per_update,
                    checkpoint_step=update * steps_per_update,
                )
                if i not in best or candidate.checkpoint_return >= best[i].checkpoint_return:
                    best[i] = candidate
                if on_progress is not None:
                    on_progress(
                        candidate.name, candidate.checkpoint_step, candidate.checkpoint_return
                    )
            if on_update is not None:
                on_update()
            going_on = [position for position, i in enumerate(active) if n_updates[i] > update]
            if going_on and len(going_on) < len(active):
                learner.keep(going_on)
                active = [active[position] for position in going_on]
    finally:
        lanes.close()
    return [best[i] for i in range(len(n_updates))]


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
        teachers.append(Teacher(f"teacher-{i}", spec, weights, source=str(file)))
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


def _is_checkpoint(update: int, n_updates: int, n_checkpoints: int) -> bool:
    """Tell whether a teacher's evenly spread checkpoints fall on ``update``; the last one does."""
    return update * n_checkpoints // n_updates > (update - 1) * n_checkpoints // n_updates


def _checkpoint(config: RunConfig, spec: NetworkSpec, teacher: int, weights: Weights) -> Teacher:
    """Return the teacher as it is now, with its greedy return on its checkpoint episodes."""
    seeds = episode_seeds(
        key(config.seed, Purpose.TEACHER_CHECKPOINTS, teacher),
        config.teachers.training.checkpoint_episodes,
    )
    evaluation = evaluate(config.environment, StackedPolicy(spec, [weights]), seeds)
    return Teacher(
        f"teacher-{teacher}",
        spec,
        weights,
        checkpoint_return=float(evaluation.returns.mean()),
    )
