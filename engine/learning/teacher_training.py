"""The training loop of teachers: a stack of PQN learners, and the best checkpoint of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import EnvironmentConfig, TeacherTrainingConfig
from engine.learning.pqn import PQN, Rollout
from engine.learning.qnetwork import StackedQNetwork
from engine.playing.environments import make_lanes
from engine.playing.evaluation import evaluate
from engine.playing.policies import StackedPolicy
from engine.seeding import stream
from populations.network import NetworkSpec, Weights


@dataclass(frozen=True, slots=True)
class Learner:
    """A network that is to be trained, and all that its training draws from.

    Attributes:
        start: Its initial weights, float32 tensors by name.
        n_steps: Its budget of environment steps, rounded down to whole rollouts but never to none.
        play: Key of the stream of its exploration and of its training episodes.
        checkpoint_seeds: Seeds of the episodes that pick its best checkpoint.
    """

    start: Weights
    n_steps: int
    play: tuple[int, ...]
    checkpoint_seeds: Sequence[int]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A learner as it was at some time.

    Attributes:
        weights: Its float32 tensors by name.
        step: Environment steps that it had been trained for.
        score: Its mean greedy return on the checkpoint episodes.
    """

    weights: dict[str, NDArray[np.float32]]
    step: int
    score: float


def n_updates(settings: TeacherTrainingConfig, n_steps: int) -> int:
    """Return the whole rollouts in a budget of environment steps, at least one."""
    return max(1, n_steps // (settings.lanes * settings.rollout))


def train_stack(
    environment: EnvironmentConfig,
    spec: NetworkSpec,
    settings: TeacherTrainingConfig,
    learners: Sequence[Learner],
    order: np.random.Generator,
    exploration: Callable[[int], float],
    on_rollout: Callable[[int, Rollout], None] | None = None,
    on_checkpoint: Callable[[int, Checkpoint], None] | None = None,
    on_update: Callable[[], None] | None = None,
) -> list[Checkpoint]:
    """Train networks of one spec side by side and keep the best checkpoint of each.

    The learning rate falls linearly to zero over the longest budget, so a learner with a smaller
    one is stopped early. Nothing else of one learner depends on another, but for the last bits: the
    number of learners and the place of one among them may choose how its matmuls round.

    Args:
        environment: What they play.
        spec: Architecture of all of them.
        settings: How they are trained; its budgets and its exploration are not read.
        learners: At least one.
        order: Stream of the minibatches, which all learners share.
        exploration: Epsilon of a rollout, by the number of updates made before it.
        on_rollout: Called with the number of a learner and what it lived through, ``(S, 1, L)``,
            before it learns from it.
        on_checkpoint: Called with the number of a learner and each of its checkpoints.
        on_update: Called after each update of the stack; may raise to stop.

    Returns:
        The checkpoint with the best score, the later one of equals, for each learner.
    """
    torch.set_num_threads(1)  # thread counts may change the bytes
    steps_per_update = settings.lanes * settings.rollout
    budgets = [n_updates(settings, learner.n_steps) for learner in learners]
    active = list(range(len(learners)))
    best: dict[int, Checkpoint] = {}
    lanes = make_lanes(environment, len(active) * settings.lanes)
    try:
        stack = PQN(
            StackedQNetwork.from_weights(spec, [learner.start for learner in learners]),
            settings,
            lanes,
            [stream(learner.play) for learner in learners],
            order,
        )
        for update in range(1, max(budgets) + 1):
            rollout = stack.rollout(exploration(update - 1))
            if on_rollout is not None:
                for position, i in enumerate(active):
                    on_rollout(i, rollout.of(position))
            stack.learn(rollout, settings.learning_rate * (1 - (update - 1) / max(budgets)))
            due = [i for i in active if _is_checkpoint(update, budgets[i], settings.checkpoints)]
            weights = stack.weights() if due else []
            for i in due:
                current = weights[active.index(i)]
                score = _score(environment, spec, current, learners[i].checkpoint_seeds)
                checkpoint = Checkpoint(current, update * steps_per_update, score)
                if i not in best or checkpoint.score >= best[i].score:
                    best[i] = checkpoint
                if on_checkpoint is not None:
                    on_checkpoint(i, checkpoint)
            if on_update is not None:
                on_update()
            going_on = [position for position, i in enumerate(active) if budgets[i] > update]
            if going_on and len(going_on) < len(active):
                stack.keep(going_on)
                active = [active[position] for position in going_on]
    finally:
        lanes.close()
    return [best[i] for i in range(len(learners))]


def _is_checkpoint(update: int, budget: int, n_checkpoints: int) -> bool:
    """Tell whether a learner's evenly spread checkpoints fall on ``update``; the last one does."""
    return update * n_checkpoints // budget > (update - 1) * n_checkpoints // budget


def _score(
    environment: EnvironmentConfig, spec: NetworkSpec, weights: Weights, seeds: Sequence[int]
) -> float:
    """Return the mean greedy return of a network."""
    return float(evaluate(environment, StackedPolicy(spec, [weights]), seeds).returns.mean())
