"""What a search is made of, from what a user gives: parents, states, environment, workers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.dispatch.executor import Executor
from engine.dispatch.workers import executor_of, stop_on_signals
from engine.errors import StageError
from engine.stages.distillation.teacher_states import environment_of_teachers
from engine.stages.networks import TEACHER_DROPOUT, Network, initial_weights, teacher_spec
from engine.stages.recombination.finetuning_states import states_for_child
from engine.stages.roles import Role, load_role, save_role, sidecar
from engine.stages.search.child import Judging, Reference
from engine.stages.search.output import Search
from engine.stages.search.scores import PrimaryMetric
from engine.stages.search.space import SearchSpace
from engine.stages.validation.thresholds import RecombinationThresholds

UNTRAINED_SEEDS = (0, 1)
"""Seeds of parents that nobody gave; those of the document."""
LOCAL = "local"
STOPPING = (
    "stopping when the children in training are made and saved; "
    "Ctrl-C once more stops at once, without them"
)


@dataclass(frozen=True)
class Workers:
    """Who makes the children, and how often one is tried.

    Attributes:
        n_workers: 1 for this process; more for as many of a private Ray.
        address: ``local``, or the Ray cluster to join: ``auto``, ``host:port`` or
            ``ray://host:port``.
        attempts: Times that a single child may crash its worker or run out of time.
        loss_attempts: Times that the machine under a child may be lost.
        task_timeout_s: Seconds for one batch of children.
        stall_timeout_s: Seconds without any result after which a line says what is waited for.
        speculation: Times the usual duration after which a batch is started a second time.
        allow_insecure_cluster: Whether a cluster may be joined that asks nobody for a token.
        mixed_cpus: Whether its CPUs may be of another kind than this machine's.
    """

    n_workers: int = 1
    address: str = LOCAL
    attempts: int = 2
    loss_attempts: int = 5
    task_timeout_s: float = 3600.0
    stall_timeout_s: float = 600.0
    speculation: float = 3.0
    allow_insecure_cluster: bool = False
    mixed_cpus: bool = False

    @contextlib.contextmanager
    def start(self, tell: Callable[[str], None]) -> Iterator[tuple[Executor, threading.Event]]:
        """Yield the executor, and the event that Ctrl-C sets.

        Raises:
            DispatchError: Ray cannot be started or joined.
        """
        is_here = self.n_workers == 1 and self.address == LOCAL
        with (
            executor_of(
                self,
                self.address,
                0 if is_here else self.n_workers,
                preload=("engine.stages.search.child",),
                allow_insecure=self.allow_insecure_cluster,
                mixed_cpus=self.mixed_cpus,
                tell=tell,
            ) as executor,
            stop_on_signals(lambda _: tell(STOPPING)) as stop,
        ):
            yield executor, stop


def set_up(
    run_dir: Path,
    space: SearchSpace,
    *,
    parent_a_ckpt: Path | None = None,
    parent_b_ckpt: Path | None = None,
    n_inputs: int = 8,
    n_actions: int = 4,
    hidden: int = 64,
    states_file: Path | None = None,
    n_states: int | None = None,
    seed: int = 42,
    environment: str | None = None,
    n_episodes: int = 100,
    thresholds: RecombinationThresholds | None = None,
    include_parent_baseline: bool = True,
    reference: Reference = "parent_a",
    primary_metric: PrimaryMetric = "min_agreement",
    degenerate_threshold: float = 0.0,
    use_training_states: bool = False,
    allow_unsafe_unpickle: bool = False,
    untrained_seeds: tuple[int, int] = UNTRAINED_SEEDS,
    tell: Callable[[str], None] = lambda text: None,
) -> Search:
    """Return a search.

    Args:
        run_dir: Where it will go; parents that nobody gave are saved there.
        space: What is tried.
        parent_a_ckpt: File of parent A; None for an untrained network of the given sizes.
        parent_b_ckpt: File of parent B; likewise.
        n_inputs: Numbers in one state, where no parent is given.
        n_actions: Number of actions, likewise.
        hidden: Units in each hidden layer, likewise.
        states_file: A ``.npy`` file of states; else those that the parents were trained on, what
            they see in their environment, or synthetic ones.
        n_states: States to fine-tune on; None for all of a file or of recorded ones, 5,000 of an
            environment, or 1,000 synthetic ones.
        seed: Of the states and the episodes.
        environment: Gymnasium id of what children play; None for what the parents' sidecars name.
        n_episodes: Episodes of each child.
        thresholds: Limits of the evaluation reports.
        include_parent_baseline: Whether the parents are ranked among the children.
        reference: Whom children imitate.
        primary_metric: What they are ranked by.
        degenerate_threshold: Children below it are marked.
        use_training_states: Judge children on the states that they are trained on.
        allow_unsafe_unpickle: Let the parents' files run their code.
        untrained_seeds: Seeds of untrained parents.
        tell: Told where states come from.

    Raises:
        StageError: A file or a combination cannot be used.
    """
    given = {"parent_A": parent_a_ckpt, "parent_B": parent_b_ckpt}
    loaded = {
        name: load_role(name, path, allow_unsafe_unpickle)
        for name, path in given.items()
        if path is not None
    }
    size = (n_inputs, n_actions, hidden)
    for role in loaded.values():  # an untrained parent has to fit the other one
        spec = role.network.spec
        size = (spec.n_inputs, spec.n_actions, spec.hidden[0])
    parents = [
        loaded[name]
        if name in loaded
        else _untrained(run_dir / f"{name}.pt", name, size, parent_seed)
        for name, parent_seed in zip(given, untrained_seeds, strict=True)
    ]
    _check_sizes(*parents)
    known = environment_of_teachers(parents, environment)
    states = states_for_child(parents, known, n_states, seed, states_file, tell)
    return Search(
        parents[0],
        parents[1],
        states=states,
        space=space,
        reference=reference,
        primary_metric=primary_metric,
        degenerate_threshold=degenerate_threshold,
        judging=Judging(
            thresholds=thresholds or RecombinationThresholds(report_only=True),
            include_parent_baseline=include_parent_baseline,
            environment=known,
            episodes=n_episodes,
            seed=seed,
        ),
        use_training_states=use_training_states,
    )


def _untrained(path: Path, name: str, size: tuple[int, int, int], seed: int) -> Role:
    """Return a network that was not trained, and write it, so that children can name it."""
    spec = teacher_spec(*size)
    network = Network(spec, initial_weights(spec, seed))
    if path.exists():
        there = load_role(name, path)
        if there.network.spec != spec or any(
            not np.array_equal(there.network.weights[key], tensor)
            for key, tensor in network.weights.items()
        ):
            raise StageError(
                f"{path} is not the untrained network of these sizes and seeds; give another "
                f"folder with --run-dir, or name it with --{name.lower().replace('_', '-')}-ckpt"
            )
        return there
    path.parent.mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = {"seed": seed, "sources": {}, "states": None, "environment": None}
    save_role(path, network, sidecar("untrained", spec, TEACHER_DROPOUT, **fields))
    return load_role(name, path)


def _check_sizes(parent_a: Role, parent_b: Role) -> None:
    """Refuse parents of different tasks before states are made for them."""
    a, b = parent_a.network.spec, parent_b.network.spec
    if (a.n_inputs, a.n_actions) != (b.n_inputs, b.n_actions):
        raise StageError(
            f"{parent_a.path} has {a.n_inputs} inputs and {a.n_actions} actions, but "
            f"{parent_b.path} has {b.n_inputs} and {b.n_actions}; give parents of one task"
        )
