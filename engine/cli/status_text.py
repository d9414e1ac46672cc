"""The status of runs as text."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console

from engine.cli.facts import counts, numbers, print_facts, with_error
from engine.cli.format import KEEP_ALWAYS, TextColumn, print_columns
from engine.cli.recipe_text import print_recipes
from engine.formatting import decimals_for, format_duration, format_rate
from engine.run_status import Breeding, ChampionStatus, Generation, Reason, RunStatus

GENERATIONS = 20  # lines of the table of generations
REASONS = 5


def print_status(console: Console, one: RunStatus) -> None:
    """Print all that is known of one run."""
    facts = [
        ("run", f"{one.name} in {one.path}, {one.environment}"),
        ("state", _state(one)),
        ("stage", _stage(one)),
        ("births", _births(one)),
        *(("", text) for text in _reasons(one.reasons)),
        ("time", _time(one)),
        ("recorded", f"last at {one.last_record}" if one.last_record else "no births yet"),
        ("size", f"{_size(one.size_bytes)} on disk"),
        *(("champion", _champion(champion)) for champion in [one.champion] if champion),
    ]
    print_facts(console, facts)
    if one.baselines:
        click.echo()
        names = [baseline.name for baseline in one.baselines]
        print_columns(
            console,
            [
                TextColumn("baseline", names, keep=KEEP_ALWAYS),
                numbers("fitness", [baseline.fitness for baseline in one.baselines]),
                numbers("held-out", [baseline.fitness_holdout for baseline in one.baselines]),
                counts("bytes", [baseline.size_bytes for baseline in one.baselines], keep=70),
            ],
        )
    if one.by_generation:
        click.echo()
        shown = _thinned(one.by_generation)
        print_columns(console, _generation_columns(shown))
        if len(shown) < len(one.by_generation):
            click.echo(
                f"{len(shown)} of {len(one.by_generation)} generations; --format json has all",
                err=True,
            )
    if one.by_operator:
        click.echo()
        print_columns(console, _operator_columns(one.by_operator))
    print_recipes(console, one.draw, one.by_recipe)


def print_overview(console: Console, found: Sequence[RunStatus]) -> None:
    """Print a line per run."""
    champions = [one.champion for one in found]
    print_columns(
        console,
        [
            TextColumn("run", [one.path for one in found], keep=KEEP_ALWAYS, least=16),
            TextColumn("state", [one.state for one in found], keep=KEEP_ALWAYS),
            TextColumn(
                "generation",
                [f"{one.generation}/{one.generations}" for one in found],
                is_number=True,
                keep=KEEP_ALWAYS,
            ),
            counts("births", [sum(one.births_by_status.values()) for one in found], keep=80),
            counts("ok", [one.births_by_status["ok"] for one in found], keep=60),
            numbers("best", [_best(one) for one in found]),
            TextColumn("champion", [c.genome if c else "-" for c in champions], keep=70),
            numbers("held-out", [c.fitness_holdout if c else None for c in champions]),
            counts("bytes", [c.size_bytes if c else None for c in champions], keep=50),
        ],
    )


def _state(one: RunStatus) -> str:
    if one.state == "stopped":
        return f"stopped; go on with 'cultivar resume {one.path}'"
    if one.state == "failed":
        return (
            f"failed, and cannot go on: {one.failure}; mend what the reasons below name, and start "
            "again with another --run-dir"
        )
    if one.state == "finished":
        return "finished"
    return f"running, {one.process}"


def _stage(one: RunStatus) -> str:
    if one.stage is None:
        return f"all {one.generations} generations, champion chosen"
    progress = (
        f", {one.stage_births:,} of {one.stage_planned:,} births" if one.stage_planned else ""
    )
    if one.stage == "generation-0":
        return f"students{progress}"
    if one.stage.startswith("generation-"):
        return f"generation {one.generation} of {one.generations}{progress}"
    return one.stage


def _births(one: RunStatus) -> str:
    plurals = {"student": "students", "child": "children", "control": "controls"}
    kinds = [
        f"{count:,} {plurals.get(kind, kind) if count > 1 else kind}"
        for kind, count in one.births_by_kind.items()
    ]
    statuses = [f"{count:,} {name}" for name, count in one.births_by_status.items() if count]
    total = sum(one.births_by_status.values())
    if total == 0:
        return "none yet"
    return f"{total:,} ({', '.join(kinds)}): {', '.join(statuses)}"


def _reasons(reasons: Sequence[Reason]) -> list[str]:
    texts = [f"{r.births:,} {r.status}: {r.reason or 'no reason given'}" for r in reasons[:REASONS]]
    if rest := reasons[REASONS:]:
        texts.append(f"{sum(r.births for r in rest):,} for {len(rest)} other reasons")
    return texts


def _time(one: RunStatus) -> str:
    if one.births_per_cpu_s is None:
        return "none spent on births yet"
    return (
        f"{format_duration(one.worker_s)} of workers ({format_duration(one.cpu_s)} CPU), "
        f"{format_rate(one.births_per_cpu_s)[:-2]} births per CPU second"
    )


def _champion(champion: ChampionStatus) -> str:
    fitness = with_error(champion.fitness, champion.fitness_sem)
    holdout = with_error(champion.fitness_holdout, champion.fitness_holdout_sem)
    episodes = f"{champion.episodes or 0:,} episodes"
    return (
        f"{champion.genome}: {holdout} held-out, {fitness} over {episodes}, "
        f"{champion.size_bytes:,} bytes, {champion.parameters:,} parameters"
    )


def _generation_columns(generations: Sequence[Generation]) -> list[TextColumn]:
    labels = [f"{g.generation}{'' if g.finished else '…'}" for g in generations]
    fitness = [
        value
        for g in generations
        for value in (g.best, g.mean, g.median, g.elites, g.controls)
        if value is not None
    ]
    decimals = decimals_for(fitness)
    return [
        TextColumn("generation", labels, is_number=True, keep=KEEP_ALWAYS),
        counts("births", [g.births for g in generations], keep=60),
        counts("ok", [g.ok for g in generations], keep=70),
        numbers("best", [g.best for g in generations], decimals),
        numbers("mean", [g.mean for g in generations], decimals),
        numbers("median", [g.median for g in generations], decimals),
        numbers("elites", [g.elites for g in generations], decimals),
        numbers("controls", [g.controls for g in generations], decimals),
    ]


def _operator_columns(operators: Sequence[Breeding]) -> list[TextColumn]:
    shares = ["-" if o.beat_parent is None else f"{o.beat_parent:.0%}" for o in operators]
    deltas = [o.delta for o in operators]
    decimals = decimals_for(v for o in operators for v in (o.mean, o.best) if v is not None)
    return [
        TextColumn("kind", [o.kind for o in operators], keep=KEEP_ALWAYS),
        TextColumn("operator", [o.operator or "-" for o in operators], keep=KEEP_ALWAYS),
        counts("births", [o.births for o in operators], keep=60),
        counts("ok", [o.ok for o in operators], keep=70),
        numbers("mean", [o.mean for o in operators], decimals),
        numbers("best", [o.best for o in operators], decimals),
        numbers("vs parent", deltas, decimals, sign="+"),
        TextColumn("beat parent", shares, is_number=True, keep=KEEP_ALWAYS),
    ]


def _best(one: RunStatus) -> float | None:
    return max((g.best for g in one.by_generation if g.best is not None), default=None)


def _size(n_bytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} bytes"


def _thinned(generations: Sequence[Generation]) -> list[Generation]:
    """Return at most ``GENERATIONS`` of them, evenly spaced, the first and the last included."""
    last = len(generations) - 1
    if last < GENERATIONS:
        return list(generations)
    return [generations[round(i * last / (GENERATIONS - 1))] for i in range(GENERATIONS)]
