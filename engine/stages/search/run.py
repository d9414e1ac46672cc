"""The crossover search: a grid of children of two parents, made anywhere, ranked together.

A search that was stopped goes on where it was: a child whose files are there, and are those that
would be written now, is not made again. A folder that holds another search is refused. A child
that fails gets a row that says why, and ends nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.dispatch.executor import Batch, Executor
from engine.errors import RunInterruptedError, StageError
from engine.layout import SEARCH_SETTINGS
from engine.one_thread import one_thread
from engine.run_lock import take_lock
from engine.stages.distillation.teacher_states import environment_of_teachers
from engine.stages.recombination.crossover import cross
from engine.stages.roles import Role
from engine.stages.search.child import ChildPlan, ChildResult, SearchContext
from engine.stages.search.files import ChildFiles
from engine.stages.search.output import LEADERBOARD, MANIFEST, Found, Search, write_search
from engine.stages.search.play import episode_returns
from engine.stages.search.ranking import Judge, leaderboard
from engine.stages.search.settings import (
    FORMAT,
    SCHEMA_VERSION,
    claim,
    dropout_of,
    judging_settings,
    trial_settings,
    versions_for,
)
from engine.stages.search.space import Trial
from engine.stages.state_sets import STATES_FILE, save_state_set
from engine.stages.states import evaluation_states

BATCH_SIZES = (4, 16)
"""Fewest and most children that are trained side by side; part of no outcome."""
BATCH_PASSES = 1_600_000
"""States times epochs of all children of a batch that are about 20 s of work, at 64 units: what is
lost or waited for where a search is stopped. Fewer than four children side by side cost more."""

RESULTS = (MANIFEST, f"{LEADERBOARD}.csv", STATES_FILE)
"""Files of a search that other commands have, too."""


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
        StageError: The parents cannot be crossed, an environment is missing, ``run_dir`` holds
            another search, or no child at all could be made.
        RunDirectoryError: Another process works in ``run_dir``.
        RunInterruptedError: ``stop`` was set before the end.
    """
    _check(search)
    run_dir.mkdir(parents=True, exist_ok=True)
    with take_lock(run_dir), one_thread():
        return _search(search, run_dir, executor, stop or threading.Event(), tell)


def batches(trials: Sequence[Trial], n_states: int) -> list[list[Trial]]:
    """Return children that are trained side by side: those of one regime, 4 to 16 of them.

    Args:
        trials: All children.
        n_states: States that each is trained on.
    """
    by_regime: dict[str, list[Trial]] = {}
    for trial in trials:
        by_regime.setdefault(trial.regime.name, []).append(trial)
    groups = []
    for group in by_regime.values():
        least, most = BATCH_SIZES
        passes = n_states * group[0].regime.epochs
        size = min(max(BATCH_PASSES // passes, least), most)
        groups += [group[start : start + size] for start in range(0, len(group), size)]
    return groups


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
    trials, dropout = search.space.trials(), dropout_of(search.parent_a)
    settings = _settings(search, trials, dropout)
    claim(run_dir / SEARCH_SETTINGS, settings, grows="children", results=RESULTS)
    save_state_set(run_dir, search.states)
    own = Role("a child", run_dir / MANIFEST, a.network, sidecar={"states": search.states.record()})
    judged_on = evaluation_states(
        [own, a, b],
        None,
        a.network.spec.n_inputs,
        search.states.seed,
        use_training_states=search.use_training_states,
    )
    files = ChildFiles(
        run_dir, (a, b), search.states, judged_on, search.reference, dropout, judging
    )
    context = SearchContext(
        a.network,
        b.network,
        search.states,
        judged_on.states,
        search.reference,
        dropout,
        judging,
    )
    results = _results(trials, context, files, executor, stop, tell)
    environment, parent_returns = judging.environment, None
    if environment is not None:
        parent_returns = episode_returns(
            [a.network, b.network], environment, judging.episodes, judging.seed
        )
    judge = Judge(
        (a.network, b.network),
        (a.format, b.format),
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


def _settings(search: Search, trials: Sequence[Trial], dropout: float) -> dict[str, Any]:
    """Return all that the children of a search depend on, whatever they are ranked by."""
    parents = {"parent_a": search.parent_a.sha256, "parent_b": search.parent_b.sha256}
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "parents": parents,
        "states": search.states.record(),
        "evaluation": {
            "use_training_states": search.use_training_states,
            **judging_settings(search.judging),
        },
        "versions": versions_for(search.judging),
        "children": [trial_settings(trial, search.reference, dropout) for trial in trials],
    }


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
    for group in batches(trials, len(context.states.train)):
        missing = [ChildPlan(trial) for trial in group if trial.index not in results]
        if missing:
            work.append(Batch.of(missing, {}))
    upcoming = iter(work)
    for batch in itertools.islice(upcoming, 0 if stop.is_set() else executor.n_workers):
        tell(_begins(batch, context))
    goes_on = "start the same command again to go on"
    try:
        for arrived in executor.run(context, work, stop):
            for result in arrived:
                trial = by_index[result.index]
                made = result.network is not None
                results[result.index] = files.save(trial, result) if made else result
                reason = f": {result.reason}" if result.reason else ""
                tell(f"{len(results)}/{len(trials)} {trial.child_id} {result.status}{reason}")
            if not stop.is_set():
                for batch in itertools.islice(upcoming, 1):
                    tell(_begins(batch, context))
    except KeyboardInterrupt:
        raise RunInterruptedError(
            f"stopped at once with {len(results)} of {len(trials)} children made; {goes_on}"
        ) from None
    if len(results) < len(trials):
        raise RunInterruptedError(
            f"stopped with {len(results)} of {len(trials)} children made; {goes_on}"
        )
    return [results[trial.index] for trial in trials]


def _begins(batch: Batch[ChildPlan], context: SearchContext) -> str:
    """Return what is made next, in words."""
    n, regime = len(batch.plans), batch.plans[0].trial.regime
    return (
        f"training {n} {'child' if n == 1 else 'children'} side by side: regime {regime.name}, "
        f"{regime.epochs} epochs of {len(context.states.train)} states"
    )
