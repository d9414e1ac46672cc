"""Train the two CartPole parents in one stack, and judge them and their int8 versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from engine.config import EnvironmentConfig, TeacherTrainingConfig
from engine.errors import StageError
from engine.seeding import Purpose, episode_seeds, key, stream
from engine.stages.cartpole.parent_settings import (
    ENVIRONMENT,
    LABELS,
    N_ACTIONS,
    N_INPUTS,
    STEPS_PER_EPISODE,
    ParentSettings,
)
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.validation.returns import play_roles
from engine.stages.validation.role_checks import all_q_values, unusable
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec

if TYPE_CHECKING:  # these import gymnasium
    from engine.learning.pqn import Rollout
    from engine.learning.teacher_training import Checkpoint, Learner
    from engine.learning.training_diary import TrainingDiary

Tell = Callable[[str], None]

CHECKPOINT_EPISODES = 32
MAX_GRAD_NORM = 1.0
"""Where AgentFarm clips, too. With it, the worst of 140 seeds returned 496; with ten times as much,
two of 100 seeds stayed below 300."""
REFIT_STATES = 8192
RECENT = 50


@dataclass(frozen=True, eq=False)
class TrainedParent:
    """A parent, and what its training left.

    Attributes:
        label: ``A`` or ``B``.
        seed: Its seed.
        network: Its best checkpoint.
        genome: The same rounded to int8.
        replay_states: The latest states that it visited in training, float32 ``(N, 4)``.
        episode_returns: Returns of its training episodes, exploration included.
        n_steps: Environment steps that it was trained for.
        final_epsilon: Share of random actions that it had fallen to.
        checkpoint_step: Environment steps after which ``network`` was taken.
        checkpoint_return: Mean greedy return on the episodes that chose it.
        returns: What :func:`engine.stages.validation.returns.play_roles` reports of both on
            held-out episodes, under the names ``parent_A`` and ``parent_A_int8``.
        int8_agreement: Share of the replay states on which both take the same action.
    """

    label: str
    seed: int
    network: Network
    genome: Genome
    replay_states: NDArray[np.float32]
    episode_returns: list[float]
    n_steps: int
    final_epsilon: float
    checkpoint_step: int
    checkpoint_return: float
    returns: dict[str, Any]
    int8_agreement: float

    @property
    def name(self) -> str:
        """What it is called in files and reports."""
        return f"parent_{self.label}"

    def held_out(self, int8: bool = False) -> dict[str, Any]:
        """Return the summary of its greedy returns on held-out episodes: mean, ci95 and so on."""
        summary: dict[str, Any] = self.returns["roles"][self.name + ("_int8" if int8 else "")]
        return summary

    def recent_return(self) -> float | None:
        """Return the mean over its last 50 training episodes, or None if none ever ended."""
        return float(np.mean(self.episode_returns[-RECENT:])) if self.episode_returns else None


def trained_parents(settings: ParentSettings, tell: Tell) -> list[TrainedParent]:
    """Train parents with PQN and keep the best checkpoint of each.

    A parent depends on its own seed alone: neither on the other one nor on whether there is one.

    Args:
        settings: Which parents, and how.
        tell: Called with lines of progress.

    Returns:
        The parents that the settings ask for, A first.

    Raises:
        StageError: The training of one diverged.
    """
    from engine.learning.teacher_training import train_stack
    from engine.learning.training_diary import TrainingDiary

    spec = teacher_spec(N_INPUTS, N_ACTIONS, settings.hidden)
    training = training_config(settings)
    # Matmuls of a stack of one round otherwise than those of a stack of two. So there are always
    # two, each parent in its own place; one that is trained alone sits beside a copy of itself.
    places = [label if label in settings.labels else settings.labels[0] for label in LABELS]
    cap = settings.max_replay_states if settings.max_replay_states > 0 else None
    diaries = [TrainingDiary(cap) for _ in places]

    def note(place: int, rollout: Rollout) -> None:
        before = diaries[place].n_visited
        diaries[place].note(rollout)
        if LABELS[place] in settings.labels:
            _tell_progress(settings, LABELS[place], diaries[place], before, tell)

    with threadpool_limits(1):
        best = train_stack(
            EnvironmentConfig(id=ENVIRONMENT),
            spec,
            training,
            [_learner(settings, spec, label) for label in places],
            stream(key(0, Purpose.MINIBATCHES)),
            lambda update: settings.epsilon(update * training.rollout),
            on_rollout=note,
        )
        parents = [
            _judged(settings, Network(spec, best[place].weights), label, best[place], diary)
            for place, (label, diary) in enumerate(zip(LABELS, diaries, strict=True))
            if label in settings.labels
        ]
    for parent in parents:
        plain, rounded = parent.held_out(), parent.held_out(int8=True)
        tell(
            f"{parent.name}: greedy return {plain['mean']:.1f}, as int8 {rounded['mean']:.1f}, "
            f"over {plain['episodes']} held-out episodes"
        )
    return parents


def training_config(settings: ParentSettings) -> TeacherTrainingConfig:
    """Return the settings in the words of the PQN trainer."""
    defaults = TeacherTrainingConfig()
    n_samples = defaults.lanes * defaults.rollout
    return TeacherTrainingConfig(
        minibatches=-(-n_samples // settings.batch_size),
        learning_rate=settings.learning_rate,
        gamma=settings.gamma,
        max_grad_norm=MAX_GRAD_NORM,
        checkpoint_episodes=CHECKPOINT_EPISODES,
    )


def _learner(settings: ParentSettings, spec: NetworkSpec, label: str) -> Learner:
    from engine.learning.teacher_training import Learner

    seed = settings.seed_of(label)
    checkpoints = key(seed, Purpose.TEACHER_CHECKPOINTS)
    return Learner(
        start=initial_weights(spec, seed),
        n_steps=settings.episodes * STEPS_PER_EPISODE,
        play=key(seed, Purpose.TEACHER_TRAINING),
        checkpoint_seeds=episode_seeds(checkpoints, CHECKPOINT_EPISODES),
    )


def _tell_progress(
    settings: ParentSettings, label: str, diary: TrainingDiary, before: int, tell: Tell
) -> None:
    """Tell how far a parent is whenever another ``log_every`` episodes of its budget are spent."""
    every = settings.log_every * STEPS_PER_EPISODE
    if diary.n_visited // every == before // every:
        return
    recent = diary.recent_return(RECENT)
    tell(
        f"parent_{label}: {diary.n_visited:,} of {settings.episodes * STEPS_PER_EPISODE:,} steps, "
        f"{len(diary.returns):,} episodes"
        + ("" if recent is None else f", mean of the last {RECENT}: {recent:.1f}")
    )


def _judged(
    settings: ParentSettings,
    network: Network,
    label: str,
    checkpoint: Checkpoint,
    diary: TrainingDiary,
) -> TrainedParent:
    """Return a parent with its int8 version, both played on held-out episodes."""
    from engine.learning.rounding import round_network

    name, seed = f"parent_{label}", settings.seed_of(label)
    states = diary.states()
    values = all_q_values({name: network}, states)
    problem = unusable({name: network}, values)
    if problem is not None:
        raise StageError(
            f"{problem}; it was trained with --lr {settings.learning_rate:g}: lower it"
        )
    chosen = stream(key(seed, Purpose.STATES)).permutation(len(states))[:REFIT_STATES]
    lineage = Lineage("parent", 0, LABELS.index(label))
    genome = round_network(network.spec, network.weights, states[np.sort(chosen)], lineage)
    rounded = Network(network.spec, genome.to_weights())
    same = values[name].argmax(axis=1) == rounded.q_values(states).argmax(axis=1)
    return TrainedParent(
        label=label,
        seed=seed,
        network=network,
        genome=genome,
        replay_states=states,
        episode_returns=diary.returns,
        n_steps=diary.n_visited,
        final_epsilon=settings.epsilon(diary.n_visited // training_config(settings).lanes),
        checkpoint_step=checkpoint.step,
        checkpoint_return=checkpoint.score,
        returns=play_roles(
            {name: network, f"{name}_int8": rounded}, ENVIRONMENT, settings.eval_episodes
        ),
        int8_agreement=float(same.mean()),
    )
