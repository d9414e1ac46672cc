"""Numbers whose sums or squares are infinite: refused where they come in, not where they end."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from fuzzing import samples
from fuzzing.mutations import resealed

from engine.errors import RunDirectoryError
from engine.recipe_table import read_table
from engine.run_record import read_run
from engine.run_status import run_status
from populations.errors import JournalError, LeaderboardError
from populations.journal import read_journal
from populations.leaderboard import load_leaderboard
from populations.population import LARGEST_RETURN, Record


def test_the_largest_returns_have_a_mean_and_an_error() -> None:
    record = Record.of([LARGEST_RETURN, -LARGEST_RETURN] * 1000)
    again = record.pooled_with(Record.of([-LARGEST_RETURN] * 1000))
    assert all(math.isfinite(r.mean) and math.isfinite(r.sem) for r in (record, again))


def with_numbers(folder: Path, number: float) -> Path:
    """Write a run whose returns and fitness are all one number."""
    for name, content in samples.run().items():
        (folder / name).write_bytes(content)
    events = list(read_journal(folder / "journal.jsonl"))
    for event in events:
        if event["type"] == "result":
            event["returns"] = [number] * len(event["returns"])
        for row in event.get("rows", ()):
            row |= {name: number for name in row if name.startswith("fitness")}
    payloads = [json.dumps(event).encode() for event in events]
    (folder / "journal.jsonl").write_bytes(resealed(payloads))
    return folder


@pytest.mark.found_in("journal, as status reads it", "journal, as resume reads it")
def test_huge_returns_of_a_journal_are_refused_and_large_ones_are_not(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"does not understand.*fitness_holdout is 1e\+308"):
        read_run(with_numbers(tmp_path, 1e308))
    status = run_status(read_run(with_numbers(tmp_path, -LARGEST_RETURN)))
    assert status.by_operator[0].mean == -LARGEST_RETURN


@pytest.mark.found_in("leaderboard", "recipes.csv")
@pytest.mark.parametrize("cell", ["1e308", "-1e308", "inf", "1e101"])
def test_huge_cells_of_tables_are_refused(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "leaderboard.csv"
    path.write_bytes(samples.leaderboards()[0].replace(b",9.5,", b",%s," % cell.encode()))
    with pytest.raises(LeaderboardError, match=r"expected a number up to 1e\+100, found"):
        load_leaderboard([path])
    path = tmp_path / "recipes.csv"
    path.write_bytes(samples.recipes()[0].replace(b"0.875", cell.encode()))
    with pytest.raises(RunDirectoryError, match="is damaged"):
        read_table(path)
