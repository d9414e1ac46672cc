"""A search, what came of it, and the files that tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.stages.networks import Network
from engine.stages.reports.files import write_json, write_text
from engine.stages.reports.table import csv_text
from engine.stages.roles import Role
from engine.stages.search.child import DEFAULT_JUDGING, ChildResult, Judging, Reference
from engine.stages.search.ranking import LEADERBOARD_COLUMNS, Entry, Judge, ranked
from engine.stages.search.recommendation import recommendation
from engine.stages.search.scores import PrimaryMetric
from engine.stages.search.space import SearchSpace, Trial
from engine.stages.state_sets import StateSet
from engine.stages.states import EvaluationStates
from engine.stages.validation.returns import play_roles

MANIFEST, LEADERBOARD = "manifest.json", "leaderboard"
RECOMMENDATION, SUMMARY = "recommendation.txt", "search_summary.json"


@dataclass(frozen=True, eq=False)
class Search:
    """A search.

    Attributes:
        parent_a: The first parent; it has a file.
        parent_b: The second parent, of the same architecture; likewise.
        states: What children are fine-tuned on; what is held out of it, they are judged on.
        space: What is tried.
        reference: Whom children imitate: ``parent_a`` as documented, or ``both``.
        primary_metric: What they are ranked by.
        degenerate_threshold: Children below it are marked; 0 marks none.
        judging: How they are judged.
        use_training_states: Judge children on the states that they are trained on, as AgentFarm
            does; the reports say so.
    """

    parent_a: Role
    parent_b: Role
    states: StateSet
    space: SearchSpace
    reference: Reference = "parent_a"
    primary_metric: PrimaryMetric = "min_agreement"
    degenerate_threshold: float = 0.0
    judging: Judging = DEFAULT_JUDGING
    use_training_states: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """What came of a search.

    Attributes:
        trials: What was tried.
        results: What became of each, in that order.
        entries: Their entries, in that order.
        parents: Entries of the parents.
        rows: The leaderboard.
        judge: Who made the entries.
    """

    trials: list[Trial]
    results: list[ChildResult]
    entries: list[Entry]
    parents: list[Entry]
    rows: list[dict[str, Any]]
    judge: Judge

    @property
    def parents_agree(self) -> float:
        """Share of the states in which the parents agree."""
        return self.judge.parents_agree

    @property
    def best_first(self) -> list[Entry]:
        """Children with a score, best first."""
        return [entry for entry in ranked(self.entries) if entry.score is not None]

    def network(self, child_id: str) -> Network:
        """Return a child as it was judged."""
        for trial, result in zip(self.trials, self.results, strict=True):
            if trial.child_id == child_id and result.network is not None:
                genome = result.genome
                return (
                    result.network if genome is None else Network(genome.spec, genome.to_weights())
                )
        raise KeyError(child_id)


def write_search(run_dir: Path, search: Search, found: Found, judged_on: EvaluationStates) -> None:
    """Write manifest, leaderboard, recommendation and summary of a search."""
    best = found.best_first[0].child_id if found.best_first else None
    returns = None
    if search.judging.environment is not None and best is not None:
        roles = {
            best: found.network(best),
            "parent_a": search.parent_a.network,
            "parent_b": search.parent_b.network,
        }
        returns = play_roles(
            roles,
            search.judging.environment,
            search.judging.episodes,
            search.judging.seed,
            ensemble=("parent_a", "parent_b"),
        )
    write_json(run_dir / MANIFEST, [entry.row for entry in found.entries])
    write_json(run_dir / f"{LEADERBOARD}.json", found.rows)
    rows = [{name: row[name] for name in LEADERBOARD_COLUMNS} for row in found.rows]
    write_text(run_dir / f"{LEADERBOARD}.csv", csv_text(rows))
    text = recommendation(
        [*found.entries, *found.parents],
        search.primary_metric,
        found.parents_agree,
        judged_on.held_out,
        returns,
    )
    write_text(run_dir / RECOMMENDATION, text)
    scores = [entry.score.value for entry in found.best_first if entry.score is not None]
    summary = {
        "search_space": search.space.name,
        "max_runs": search.space.max_runs,
        "reference": search.reference,
        "primary_metric": search.primary_metric,
        "n_children": len(found.entries),
        "n_failed": len(found.entries) - len(scores),
        "best_child": best,
        "best_primary_metric": max(scores, default=None),
        "mean_primary_metric": float(np.mean(scores)) if scores else None,
        "parents_agree": found.parents_agree,
        "parents": {
            "parent_a": search.parent_a.source(run_dir),
            "parent_b": search.parent_b.source(run_dir),
        },
        "unsafe_unpickle": search.parent_a.unsafe or search.parent_b.unsafe,
        "states": search.states.record(),
        "evaluation_states": judged_on.record(),
        "returns": returns,
    }
    write_json(run_dir / SUMMARY, summary)
