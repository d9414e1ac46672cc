"""The crossover search: a grid of children of two parents, made anywhere, ranked together.

A search that was stopped goes on where it was: a child whose files are there, and are those that
would be written now, is not made again. A child that fails gets a row that says why, and ends
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from engine.dispatch.executor import Batch, Executor
from engine.errors import RunInterruptedError, StageError
from engine.run_lock import take_lock
from engine.stages.distillation.teacher_states import environment_of_teachers
from engine.stages.recombination.crossover import cross
from engine.stages.roles import Role
from engine.stages.search.child import ChildPlan, ChildResult, SearchContext
from engine.stages.search.files import ChildFiles
from engine.stages.search.output import MANIFEST, Found, Search, write_search
from engine.stages.search.play import episode_returns
from engine.stages.search.ranking import Judge, leaderboard
from engine.stages.search.space import Trial
from engine.stages.state_sets import save_state_set
from engine.stages.states import evaluation_states

BATCH_SIZE = 16
"""Most children that are trained side by side; part of no outcome."""


def crossover_search(
    search: Search,
    run_dir: Path,
    executor: Executor,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Found:
    """Carry out a search, or go on with one, and write its files.

    Args:
        search: The search.
        run_dir: Where it goes.
        executor: Where children are made.
        stop: Set it to stop after what is in flight.
        tell: Told what happens, one line at a time.

    Raises:
        StageError: The parents cannot be crossed, an environment is missing, or no child at all
            could be made.
        RunDirectoryError: Another process works in ``run_dir``.
        RunInterruptedError: ``stop`` was set before the end.
    """
    _check(search)
    run_dir.mkdir(parents=True, exist_ok=True)
    with take_lock(run_dir), threadpool_limits(1):
        return _search(search, run_dir, executor, stop or threading.Event(), tell)


def batches(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Return children that are trained side by side: those of one regime, at most 16."""
    by_regime: dict[str, list[Trial]] = {}
    for trial in trials:
        by_regime.setdefault(trial.regime.name, []).append(trial)
    return [
        group[start : start + BATCH_SIZE]
        for group in by_regime.values()
        for start in range(0, len(group), BATCH_SIZE)
    ]


def _check(search: Search) -> None:
    """Refuse what no child could come of."""
    a, b = search.parent_a, search.parent_b
    names = (str(a.path or a.name), str(b.path or b.name))
    cross(a.network, b.network, "weighted", names=names)
    environment = search.judging.environment
    if environment is not None:
        environment_of_teachers([a, b], environment)  # refuses one that they cannot play
    elif search.primary_metric == "return":
        raise StageError(
            "--primary-metric return needs an environment, but no sidecar of the parents names "
            "one; give --env"
        )


def _search(
    search: Search,
    run_dir: Path,
    executor: Executor,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> Found:
    a, b, judging = search.parent_a, search.parent_b, search.judging
    save_state_set(run_dir, search.states)
    own = Role("a child", run_dir / MANIFEST, a.network, sidecar={"states": search.states.record()})
    judged_on = evaluation_states(
        [own, a, b],
        None,
        a.network.spec.n_inputs,
        search.states.seed,
        use_training_states=search.use_training_states,
    )
    files = ChildFiles(run_dir, (a, b), search.states, judged_on, search.reference, judging)
    context = SearchContext(
        a.network,
        b.network,
        search.states,
        judged_on.states,
        search.reference,
        files.dropout,
        judging,
    )
    trials = search.space.trials()
    results = _results(trials, context, files, executor, stop, tell)
    environment, parent_returns = judging.environment, None
    if environment is not None:
        parent_returns = episode_returns(
            [a.network, b.network], environment, judging.episodes, judging.seed
        )
    judge = Judge(
        (a.network, b.network),
        judged_on.states,
        search.primary_metric,
        search.degenerate_threshold,
        parent_returns,
    )
    entries = [judge.entry(t, r) for t, r in zip(trials, results, strict=True)]
    parents = judge.parent_entries() if judging.include_parent_baseline else []
    rows = leaderboard([*entries, *parents])
    found = Found(trials, results, entries, parents, rows, judge)
    write_search(run_dir, search, found, judged_on)
    if not found.best_first:
        raise StageError(
            f"none of the {len(trials)} children could be made; the first one: "
            f"{entries[0].row['reason']}"
        )
    return found


def _results(
    trials: Sequence[Trial],
    context: SearchContext,
    files: ChildFiles,
    executor: Executor,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> list[ChildResult]:
    """Return what became of each trial; what was made before is not made again."""
    by_index = {trial.index: trial for trial in trials}
    results = {trial.index: saved for trial in trials if (saved := files.saved(trial)) is not None}
    if results:
        tell(f"{len(results)} of {len(trials)} children were made before")
    work = []
    for group in batches(trials):
        missing = [ChildPlan(trial) for trial in group if trial.index not in results]
        if missing:
            work.append(Batch.of(missing, {}))
    for arrived in executor.run(context, work, stop):
        for result in arrived:
            trial = by_index[result.index]
            made = result.network is not None
            results[result.index] = files.save(trial, result) if made else result
            reason = f": {result.reason}" if result.reason else ""
            tell(f"{len(results)}/{len(trials)} {trial.child_id} {result.status}{reason}")
    if len(results) < len(trials):
        raise RunInterruptedError(
            f"stopped with {len(results)} of {len(trials)} children made; the same command goes on"
        )
    return [results[trial.index] for trial in trials]
