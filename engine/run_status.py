"""How a run is getting on, in numbers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.config import RunConfig
from engine.layout import RECIPES
from engine.recipe_table import RecipeRow, read_table
from engine.run_failure import failure
from engine.run_lock import Holder
from engine.run_record import RunRecord
from populations.leaderboard import Row

State = Literal["running", "finished", "stopped", "failed"]

N_CONTROLS = 2  # kinds of controls: clone + fine-tune and random + fine-tune


@dataclass(frozen=True)
class Reason:
    """Why births came to nothing, and how many."""

    status: str
    reason: str
    births: int


@dataclass(frozen=True)
class Generation:
    """One generation.

    Attributes:
        generation: Its number; 0 are the students.
        births: Students or children so far.
        ok: How many of them were scored.
        best: Highest fitness of these births, each over this generation's episodes.
        mean: Mean fitness of these births.
        median: Median fitness of these births.
        elites: Mean of the pooled fitness of the elites that were scored again.
        controls: Mean fitness of the controls.
        finished: Whether all of it is recorded.
    """

    generation: int
    births: int
    ok: int
    best: float | None
    mean: float | None
    median: float | None
    elites: float | None
    controls: float | None
    finished: bool


@dataclass(frozen=True)
class Breeding:
    """What one operator has achieved so far.

    Attributes:
        kind: What it bred: students, children, or controls.
        operator: Its name; ``all`` for all children together, empty where it is not known of what
            failed in an unfinished generation.
        births: How many.
        ok: How many of them were scored.
        mean: Mean fitness of the scored ones.
        best: Highest fitness.
        delta: Mean of their fitness minus that of their fitter parent, in finished generations.
        beat_parent: Share of those with a parent that are fitter than it.
    """

    kind: str
    operator: str
    births: int
    ok: int
    mean: float | None
    best: float | None
    delta: float | None
    beat_parent: float | None


@dataclass(frozen=True)
class Baseline:
    """A teacher, or the ensemble of all."""

    name: str
    fitness: float | None
    fitness_holdout: float | None
    size_bytes: int | None


@dataclass(frozen=True)
class ChampionStatus:
    """The champion in short."""

    genome: str
    fitness: float | None
    fitness_sem: float | None
    episodes: int | None
    fitness_holdout: float | None
    fitness_holdout_sem: float | None
    size_bytes: int | None
    parameters: int | None


@dataclass(frozen=True)
class RunStatus:
    """How a run is getting on.

    Attributes:
        path: Its directory.
        name: Its name.
        environment: What is played.
        state: Whether it is finished, a process works on it, it was stopped, or it failed and
            cannot go on.
        failure: Why it cannot go on, where it failed.
        process: The process that works on it, as far as it is known, or None.
        stage: The stage that is not finished yet; None where the run is.
        generation: The generation that is bred, or the last one.
        generations: How many generations there will be after the students.
        stage_births: Births of the unfinished stage so far.
        stage_planned: Births that the unfinished stage will have; 0 where nothing is born in it.
        births_by_kind: Number of births so far.
        births_by_status: What became of them.
        reasons: Why some came to nothing, the most frequent ones first.
        by_generation: Each generation that has begun.
        by_operator: Each operator: students, children, all children together, controls.
        draw: How recipes are drawn: ``mix``, ``grid`` or ``bandit``.
        by_recipe: Each recipe, in the order of the configuration, up to the last generation that
            was finished; empty before there are students.
        baselines: The teachers and their ensemble.
        champion: The champion, or None where there is none yet.
        worker_s: Seconds that workers spent on births and evaluations.
        cpu_s: CPU seconds of these.
        births_per_cpu_s: Births per CPU second spent on births.
        last_record: Time of the latest birth or evaluation, ISO 8601 in UTC.
        size_bytes: Size of the directory.
    """

    path: str
    name: str
    environment: str
    state: State
    failure: str | None
    process: Holder | str | None
    stage: str | None
    generation: int
    generations: int
    stage_births: int
    stage_planned: int
    births_by_kind: dict[str, int]
    births_by_status: dict[str, int]
    reasons: list[Reason]
    by_generation: list[Generation]
    by_operator: list[Breeding]
    draw: str
    by_recipe: list[RecipeRow]
    baselines: list[Baseline]
    champion: ChampionStatus | None
    worker_s: float
    cpu_s: float
    births_per_cpu_s: float | None
    last_record: str | None
    size_bytes: int


def run_status(run: RunRecord) -> RunStatus:
    """Sum up what a run has recorded.

    Raises:
        RunDirectoryError: The run is finished, but its ``champion.json`` is missing or damaged, or
            its table of recipes is damaged.
    """
    births, stage = run.births, run.unfinished
    failed = None if run.process else failure(run)
    birth_cpu_s = sum(row.cpu_s or 0.0 for row in births)
    statuses = Counter(row.status for row in births)
    reasons = Counter((row.status, row.reason) for row in births if row.status != "ok")
    by_generation = _generations(run)
    return RunStatus(
        path=str(run.path),
        name=run.config.name,
        environment=run.config.environment.id,
        state=_state(run, failed),
        failure=failed,
        process=run.process,
        stage=stage,
        generation=_generation_of(stage, run.config),
        generations=run.config.evolution.generations,
        stage_births=len(run.pending),
        stage_planned=_planned(stage, run.config),
        births_by_kind=dict(Counter(row.kind for row in births)),
        births_by_status={name: statuses[name] for name in ("ok", "rejected", "failed", "lost")},
        reasons=[Reason(*key, count) for key, count in reasons.most_common()],
        by_generation=by_generation,
        by_operator=_operators(run.all_rows),
        draw=run.config.evolution.draw,
        by_recipe=read_table(run.path / RECIPES),
        baselines=_baselines(run),
        champion=_champion(run),
        worker_s=sum(row.wall_s or 0.0 for row in run.all_rows),
        cpu_s=sum(row.cpu_s or 0.0 for row in run.all_rows),
        births_per_cpu_s=len(births) / birth_cpu_s if birth_cpu_s else None,
        last_record=max((row.created_at for row in run.all_rows if row.created_at), default=None),
        size_bytes=_directory_size(run.path),
    )


def _state(run: RunRecord, failed: str | None) -> State:
    if run.unfinished is None:
        return "finished"
    return "running" if run.process else "stopped" if failed is None else "failed"


def _generation_of(stage: str | None, config: RunConfig) -> int:
    if stage is None or stage == "champion":
        return config.evolution.generations
    return int(stage.removeprefix("generation-")) if stage.startswith("generation-") else 0


def _planned(stage: str | None, config: RunConfig) -> int:
    if stage is None or not stage.startswith("generation-"):
        return 0
    if stage == "generation-0":
        return config.distillation.students + (config.distillation.ancestor == "shared")
    return config.evolution.children + N_CONTROLS * config.evolution.controls


def _generations(run: RunRecord) -> list[Generation]:
    rows: dict[int, list[Row]] = {}
    for row in run.all_rows:
        # Held-out games are of no generation; teachers and the ancestor are nobody's rivals.
        if row.kind in ("student", "child", "control") and row.fitness_holdout is None:
            rows.setdefault(row.generation, []).append(row)
    return [_generation(number, rows[number], run) for number in sorted(rows)]


def _generation(number: int, rows: Sequence[Row], run: RunRecord) -> Generation:
    born = [row for row in rows if row.child is not None]
    bred = [row for row in born if row.kind != "control"]
    fitness = _fitness(bred)
    return Generation(
        generation=number,
        births=len(bred),
        ok=len(fitness),
        best=max(fitness, default=None),
        mean=_mean(fitness),
        median=statistics.median(fitness) if fitness else None,
        elites=_mean(_fitness(row for row in rows if row.child is None)),
        controls=_mean(_fitness(row for row in born if row.kind == "control")),
        finished=f"generation-{number}" in run.stages,
    )


def _operators(rows: Sequence[Row]) -> list[Breeding]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for kind in ("student", "child", "control"):
        born = [row for row in rows if row.kind == kind and row.child is not None]
        names = sorted({row.operator or "" for row in born})
        for name in names:
            groups[kind, name] = [row for row in born if (row.operator or "") == name]
        if kind == "child" and len(names) > 1:
            groups[kind, "all"] = born
    return [_breeding(kind, name, group) for (kind, name), group in groups.items()]


def _breeding(kind: str, operator: str, rows: Sequence[Row]) -> Breeding:
    fitness = _fitness(rows)
    deltas = [row.delta_vs_better_parent for row in rows if row.delta_vs_better_parent is not None]
    return Breeding(
        kind=kind,
        operator=operator,
        births=len(rows),
        ok=len(fitness),
        mean=_mean(fitness),
        best=max(fitness, default=None),
        delta=_mean(deltas),
        beat_parent=_mean([float(delta > 0) for delta in deltas]),
    )


def _baselines(run: RunRecord) -> list[Baseline]:
    names: dict[int | None, str] = dict(enumerate(run.teachers))
    return [
        Baseline(
            name=names.get(row.child, row.kind),
            fitness=row.fitness,
            fitness_holdout=row.fitness_holdout,
            size_bytes=row.size_bytes,
        )
        for row in run.rows
        if row.kind in ("teacher", "ensemble")
    ]


def _champion(run: RunRecord) -> ChampionStatus | None:
    genome = run.champion
    for row in run.rows:
        if genome is not None and row.genome == genome and row.fitness_holdout is not None:
            return ChampionStatus(
                genome=genome,
                fitness=row.fitness,
                fitness_sem=row.fitness_sem,
                episodes=row.episodes,
                fitness_holdout=row.fitness_holdout,
                fitness_holdout_sem=row.fitness_holdout_sem,
                size_bytes=row.size_bytes,
                parameters=row.parameters,
            )
    return None


def _fitness(rows: Iterable[Row]) -> list[float]:
    return [row.fitness for row in rows if row.fitness is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _directory_size(path: Path) -> int:
    """Return the bytes of all files; a run in progress may take some away meanwhile."""
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total
