"""What a run needs before anything is bred: teachers, states, targets, and the baselines."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.breeding import Context
from engine.config import RunConfig
from engine.errors import RunDirectoryError
from engine.layout import JOURNAL, STATES, teacher_path
from engine.learning.imitation import Lessons
from engine.learning.npy_files import NPY_DAMAGE, read_npz
from engine.learning.states import (
    MIN_STATES,
    collect_states,
    load_states,
    split_states,
    teacher_values,
)
from engine.learning.targets import targets
from engine.learning.teachers import Teacher, load_teachers, train_teachers
from engine.playing.environments import TaskSpec, describe
from engine.playing.evaluation import evaluate
from engine.playing.policies import EnsemblePolicy, Policy, StackedPolicy
from engine.record_checks import check_teachers, understood
from engine.records import now, scores
from engine.run_directory import RunDirectory
from engine.seeding import Purpose, key
from populations.durable import make_folder
from populations.leaderboard import Row
from populations.network import NetworkSpec
from populations.plans import Kind
from populations.population import Record
from populations.regular_files import is_regular, sha256_of
from populations.storage import load_weights, save_weights, write_atomically


@dataclass(frozen=True)
class Prepared:
    """Everything that breeding starts from.

    Attributes:
        context: What all tasks share.
        teachers: The teachers.
        scales: What each teacher's advantages were divided by, shape ``(T,)``.
    """

    context: Context
    teachers: list[Teacher]
    scales: NDArray[np.float32]


def prepare(config: RunConfig, directory: RunDirectory, tell: Callable[[str], None]) -> Prepared:
    """Train or load the teachers, sample the states, compute the targets.

    What a stopped run has already is read back and checked against its recorded hash.

    Args:
        config: The run.
        directory: Where it is recorded.
        tell: Called often, with what was done or an empty text; may raise to stop.

    Raises:
        CultivarError: The environment, a teacher or the states are not usable, or a file of the
            run was altered.
    """
    task = describe(config.environment)
    teachers = _teachers(config, task, directory, tell)
    spec = NetworkSpec(
        task.observation_shape, config.network.hidden, task.n_actions, config.network.norm
    )
    tell("states")
    states = _states(config, task, teachers, directory)
    tell("targets")
    weights = [teacher.weights for teacher in teachers]
    values = teacher_values(teachers[0].spec, weights, states)
    wanted, scales = targets(values, config.learning.targets)
    train, validation = split_states(
        len(states), config.states.validation_fraction, key(config.seed, Purpose.SPLIT)
    )
    by_action = wanted.transpose(0, 2, 1)  # (T, A, N)
    context = Context(
        run_seed=config.seed,
        environment=config.environment,
        learning=config.learning,
        spec=spec,
        vector_dtype=config.network.vector_dtype,
        lessons=Lessons(
            train_states=states[train],
            train_targets=np.ascontiguousarray(by_action[:, :, train]),
            validation_states=states[validation],
            validation_targets=np.ascontiguousarray(by_action[:, :, validation]),
        ),
        episodes=config.evaluation.episodes,
        holdout_episodes=config.evaluation.holdout_episodes,
    )
    return Prepared(context, teachers, scales)


def baseline_rows(run: str, prepared: Prepared, teacher_files: list[Path]) -> list[Row]:
    """Let the teachers and their ensemble play, and return their rows.

    Their fitness is over the episodes of generation 0, and they play the held-out ones, too.
    """
    context, teachers = prepared.context, prepared.teachers
    spec = teachers[0].spec
    weights = [teacher.weights for teacher in teachers]
    best = context.lessons.validation_targets.argmax(axis=1)  # (T, M)
    ensemble = EnsemblePolicy(spec, weights, prepared.scales)
    vote = ensemble.act(context.lessons.validation_states[None])
    players: list[tuple[Kind, Policy, NDArray[np.intp]]] = [
        ("teacher", StackedPolicy(spec, weights), best),
        ("ensemble", ensemble, vote),
    ]
    rows = []
    for kind, policy, actions in players:
        everyone = np.arange(policy.n_networks)
        wall, cpu = time.perf_counter(), time.process_time()
        fitness = evaluate(
            context.environment, policy.select(everyone), context.seeds("children", 0)
        )
        holdout = evaluate(
            context.environment, policy.select(everyone), context.seeds("holdout", 0)
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        for number in everyone:
            held_out = Record.of(holdout.returns[number])
            n_networks = 1 if kind == "teacher" else len(teachers)
            sizes = [path.stat().st_size for path in teacher_files]
            rows.append(
                Row(
                    run=run,
                    kind=kind,
                    generation=0,
                    child=int(number) if kind == "teacher" else None,
                    **scores(Record.of(fitness.returns[number])),
                    fitness_holdout=held_out.mean,
                    fitness_holdout_sem=held_out.sem,
                    agreements=tuple(float((actions[number] == other).mean()) for other in best),
                    size_bytes=sizes[number] if kind == "teacher" else sum(sizes),
                    parameters=spec.n_parameters * n_networks,
                    attempts=1,
                    node=socket.gethostname(),
                    wall_s=wall / policy.n_networks,
                    cpu_s=cpu / policy.n_networks,
                    created_at=now(),
                )
            )
    return rows


def _teachers(
    config: RunConfig, task: TaskSpec, directory: RunDirectory, tell: Callable[[str], None]
) -> list[Teacher]:
    recorded = directory.stage("teachers")
    if recorded is not None:
        with understood(directory.path / JOURNAL):
            check_teachers(recorded["teachers"])
        return [_reload(directory.path, entry) for entry in recorded["teachers"]]
    if config.teachers.files:
        teachers = load_teachers(config.teachers.files, task, config.teachers.allow_unsafe_unpickle)
    else:
        teachers = train_teachers(
            config,
            task,
            lambda name, step, mean: tell(f"{name}: {mean:.1f} after {step:,} steps"),
            lambda: tell(""),
        )
    directory.check()
    make_folder(directory.path / "teachers")
    entries = []
    for teacher in teachers:
        path = teacher_path(directory.path, teacher.name)
        about = {"source": teacher.source, "steps": teacher.steps}
        save_weights(path, teacher.spec, teacher.weights, about)
        entries.append({"name": teacher.name, **about, "sha256": sha256_of(path)})
    directory.finish_stage("teachers", tuple, {"teachers": entries})
    return teachers


def _reload(run_directory: Path, entry: dict[str, str]) -> Teacher:
    path = teacher_path(run_directory, entry["name"])
    _check_hash(path, entry["sha256"])
    spec, weights, about = load_weights(path)
    about = about if isinstance(about, dict) else {}
    source, steps = about.get("source"), about.get("steps")
    if not isinstance(source, str) or type(steps) is not int:
        raise RunDirectoryError(
            f"{path}: expected the source and steps of a teacher, not {source!r:.60} and "
            f"{steps!r:.60}; put the original back, or start a new run"
        )
    return Teacher(entry["name"], spec, weights, source=source, steps=steps)


def _states(
    config: RunConfig, task: TaskSpec, teachers: list[Teacher], directory: RunDirectory
) -> NDArray[np.float32]:
    path = directory.path / STATES
    recorded = directory.stage("states")
    if recorded is not None:
        _check_hash(path, recorded["sha256"])
        return _reread(path, teachers[0].spec.n_inputs)
    if config.states.file is not None:
        states = load_states(Path(config.states.file), teachers[0].spec.n_inputs)
    else:
        states = collect_states(config, task, teachers)
    content = io.BytesIO()
    np.savez_compressed(content, states=states)
    directory.check()
    write_atomically(path, content.getvalue())
    directory.finish_stage("states", tuple, {"sha256": sha256_of(path), "n_states": len(states)})
    return states


def _reread(path: Path, n_inputs: int) -> NDArray[np.float32]:
    """Return the states that the run recorded; the run may be somebody else's."""
    try:
        states = read_npz(path, ("states",))["states"]
        if states.dtype != np.float32 or states.ndim != 2 or states.shape[1] != n_inputs:
            raise ValueError(f"an array of {states.dtype} of shape {states.shape}")
        if len(states) < MIN_STATES or not np.isfinite(states).all():
            raise ValueError(f"{len(states)} states, or not all of them finite")
    except NPY_DAMAGE as error:
        raise RunDirectoryError(
            f"{path}: expected float32 states of shape (N, {n_inputs}), but the file is damaged "
            f"({error}); start a new run"
        ) from error
    return states


def _check_hash(path: Path, sha256: str) -> None:
    if not is_regular(path) or sha256_of(path) != sha256:
        raise RunDirectoryError(
            f"{path} is missing or was altered since the run wrote it; "
            "put the original back, or start a new run"
        )
