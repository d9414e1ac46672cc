"""Runs that cannot go on: those of which all births came to nothing.

What is recorded is not done again, so that such a run would end in the same way however often it is
resumed. The rule is that of ``engine.evolution``.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.run_record import RunRecord
from populations.leaderboard import Row


def failure(run: RunRecord) -> str | None:
    """Return why a run cannot go on, in a few words, or None where it can or is finished.

    It cannot if no student of generation 0 succeeded, nor where all children failed in its first
    generation or in two in a row.
    """
    stage = run.unfinished
    if stage is None or not stage.startswith("generation-"):
        return None
    number = int(stage.removeprefix("generation-"))
    if number == 0:
        return _of_founders(run)
    n_children = run.config.evolution.children
    if not _all_failed(run.pending, number, n_children):
        return None
    if number == 1:
        return f"all {n_children:,} children of generation 1 failed"
    if _all_failed(run.rows, number - 1, n_children):
        return f"all {n_children:,} children of generations {number - 1} and {number} failed"
    return None


def _of_founders(run: RunRecord) -> str | None:
    for kind, planned in (("ancestor", 1), ("student", run.config.distillation.students)):
        born = [row for row in run.pending if row.kind == kind]
        if len(born) == planned and all(row.status != "ok" for row in born):
            what = "the ancestor" if kind == "ancestor" else f"all {planned:,} students"
            return f"{what} came to nothing"
    return None


def _all_failed(rows: Sequence[Row], generation: int, planned: int) -> bool:
    children = [
        row
        for row in rows
        if row.kind == "child" and row.generation == generation and row.child is not None
    ]
    failed = all(row.status in ("failed", "lost") for row in children)
    return 0 < planned == len(children) and failed
