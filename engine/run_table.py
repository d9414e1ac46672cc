"""The rows of runs as one table, those included that ``leaderboard.csv`` does not have yet.

A generation gets its rows there when it is finished; until then its births are in the journal only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from engine.layout import CONFIG, SUMMARY
from engine.run_record import RunRecord, not_a_run, read_run
from populations.errors import CultivarError
from populations.leaderboard import FILE_NAME, Columns, as_table, join_tables, load_leaderboard


def load_runs(paths: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Read run directories and leaderboard files into one table.

    Args:
        paths: Run directories, which may be in progress, or CSV files; one that is named twice is
            read once.

    Returns:
        The table, see :func:`populations.leaderboard.load_leaderboard`, and what a user should know
        about it, in sentences. How the births of an unfinished generation were made is not known
        before it is finished.

    Raises:
        CultivarError: A path is neither a run directory nor a leaderboard, or what it holds is
            damaged.
    """
    distinct = {(p / FILE_NAME if p.is_dir() else p).resolve(): p for p in reversed(paths)}
    notes: list[str] = []
    tables = [_load(path, notes) for path in reversed(distinct.values())]
    return join_tables(tables), notes


def _load(path: Path, notes: list[str]) -> pd.DataFrame:
    if path.is_dir() and not (path / FILE_NAME).exists():
        if not (path / CONFIG).is_file():
            raise not_a_run(path, FILE_NAME)
        run = read_run(path)
        if not run.all_rows:
            notes.append(f"{path}: nothing is born yet; see 'cultivar status {path}'")
        return as_table(run.all_rows, Columns(run.teachers))
    # Before the file: births of a generation that ends in between would be missing in both.
    unfinished = _unfinished(path, notes)
    table = load_leaderboard([path])
    if unfinished is None or not unfinished.pending:
        return table
    born = table[table["child"].notna()]
    known = set(zip(born["kind"], born["generation"], born["child"], strict=True))
    new = [row for row in unfinished.pending if (row.kind, row.generation, row.child) not in known]
    return join_tables([table, as_table(new, Columns(unfinished.teachers))])


def _unfinished(path: Path, notes: list[str]) -> RunRecord | None:
    """Return what a run has recorded, or None where its leaderboard has all of it."""
    # The summary is written after all generations.
    if not (path / CONFIG).is_file() or (path / SUMMARY).exists():
        return None
    try:
        return read_run(path)
    except CultivarError as error:  # what is finished can be shown all the same
        notes.append(f"{path}: births of an unfinished generation are left out: {error}")
        return None
