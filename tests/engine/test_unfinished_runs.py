"""Runs that are not finished, or never will be: what the journal knows is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.cli.inspect import status
from engine.cli.leaderboard import leaderboard
from engine.config_file import dump_config, load_config
from engine.errors import RunDirectoryError
from engine.layout import CONFIG, JOURNAL, SUMMARY
from engine.records import result_to_event, row_to_event
from engine.run_record import RunRecord, read_run
from engine.run_status import run_status
from engine.run_table import load_runs
from populations.errors import JournalError
from populations.journal import Journal
from populations.leaderboard import FILE_NAME, Columns, LeaderboardWriter, Row
from populations.plans import Result, Status

BEFORE = ("teachers", "states", "baselines", "generation-0")
REASON = "boom: ValueError: too warm"


class Run:
    """A run directory of two children and no controls per generation, written by hand."""

    def __init__(self, path: Path, *settings: str) -> None:
        self.path = path
        overrides = [
            "evolution.children=2",
            "evolution.controls=0",
            "evolution.generations=4",
            "evolution.recipes=[{operator: boom}]",
            *settings,
        ]
        path.mkdir(parents=True)
        (path / CONFIG).write_text(dump_config(load_config("smoke", overrides)))
        Journal.create(path / JOURNAL).close()
        self.rows: list[Row] = []

    def append(self, events: list[dict[str, Any]]) -> None:
        journal, _ = Journal.open(self.path / JOURNAL)
        with journal:
            journal.append(events)

    def stages(self, *names: str) -> None:
        self.append([{"type": "stage", "stage": name, "rows": []} for name in names])

    def born(self, generation: int, *born: Status, phase: str = "children") -> list[Result]:
        results = [
            Result(phase, generation, index, one, "" if one == "ok" else REASON)
            for index, one in enumerate(born)
        ]
        self.append([result_to_event(result) for result in results])
        return results

    def finished(self, generation: int, *born: Status) -> None:
        for result in self.born(generation, *born):
            self.rows.append(
                Row(
                    **{"run": "smoke", "kind": "child", "generation": generation},
                    **{"child": result.index, "operator": "boom", "fitness": 1.0},
                    **{"status": result.status, "reason": result.reason},
                )
            )
        now = [row_to_event(row) for row in self.rows if row.generation == generation]
        self.append([{"type": "stage", "stage": f"generation-{generation}", "rows": now}])
        LeaderboardWriter(self.path / FILE_NAME, Columns()).rewrite(self.rows)

    def record(self) -> RunRecord:
        return read_run(self.path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "run")
    made.stages(*BEFORE)
    return made


def shown(*arguments: str | Path) -> list[dict[str, Any]]:
    texts = [*map(str, arguments), "--format", "json"]
    values = json.loads(CliRunner().invoke(leaderboard, texts, catch_exceptions=False).stdout)
    assert isinstance(values, list)
    return values


def failure(run: Run) -> str | None:
    found = run_status(run.record())
    assert found.state == ("stopped" if found.failure is None else "failed")
    return found.failure


def test_births_of_an_unfinished_generation_are_on_the_leaderboard(run: Run) -> None:
    run.finished(1, "ok", "ok")
    run.born(2, "failed", "lost")
    rows = shown(run.path, "--where", "status != 'ok'", "--columns", "generation,operator,reason")
    assert rows == [{"generation": 2, "operator": "boom", "reason": REASON}] * 2
    (group,) = shown(run.path, "--by", "operator")
    assert (group["kind"], group["operator"], group["count"], group["scored"]) == (
        *("child", "boom"),
        *(4, 2),
    )
    assert len(shown(run.path / FILE_NAME)) == 2  # a file is shown as it is


def test_the_leaderboard_shows_a_birth_once(run: Run) -> None:
    run.finished(1, "ok", "failed")
    cut = (run.path / JOURNAL).read_bytes().splitlines(keepends=True)[:-1]
    (run.path / JOURNAL).write_bytes(b"".join(cut))  # as if read before the generation ended
    assert len(run.record().pending) == 2
    table, notes = load_runs([run.path, run.path, run.path / FILE_NAME])
    assert (len(table), notes) == (2, [])


def test_the_journal_of_a_finished_run_is_not_read_for_its_leaderboard(run: Run) -> None:
    run.finished(1, "ok", "ok")
    (run.path / JOURNAL).write_bytes(b"damaged")
    table, notes = load_runs([run.path])
    assert len(table) == 2
    assert len(notes) == 1
    assert "births of an unfinished generation are left out: " in notes[0]
    (run.path / SUMMARY).write_text("{}")
    assert load_runs([run.path])[1] == []


def test_a_run_without_births_is_one_that_has_none_yet(tmp_path: Path) -> None:
    run = Run(tmp_path / "new")
    result = CliRunner().invoke(leaderboard, [str(run.path)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith(f"{run.path}: nothing is born yet; see 'cultivar status ")


def test_a_run_without_its_leaderboard_is_shown_from_the_journal(run: Run) -> None:
    run.finished(1, "ok", "failed")
    (run.path / FILE_NAME).unlink()
    assert [row["status"] for row in shown(run.path)] == ["ok", "failed"]
    (run.path / JOURNAL).write_bytes(b"damaged")
    with pytest.raises(JournalError):
        load_runs([run.path])


@pytest.mark.parametrize("command", [leaderboard, status])
def test_a_folder_of_runs_is_told_from_a_run(tmp_path: Path, command: Any) -> None:
    for number in range(10):
        Run(tmp_path / f"run-{number}")
    with pytest.raises(RunDirectoryError, match=r"are the runs run-0, .*run-7 and 2 more; name"):
        CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="there is no run directory"):
        read_run(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("reason", "operator"),
    [
        ("unit: ValueError: too warm", "unit"),
        ("the child of layer: network.0.weight holds NaN or infinity", "layer"),
        ("unit writes into what it was given, which is read-only", "unit"),
        ("gaussian: ValueError: unit is no number", None),  # the mutation
        ("", None),
    ],
)
def test_a_reason_may_tell_the_operator_of_a_birth_that_failed(
    tmp_path: Path, reason: str, operator: str | None
) -> None:
    run = Run(tmp_path / "run", "evolution.recipes=[{operator: [unit, layer]}]")
    run.stages(*BEFORE)
    run.append([result_to_event(Result("children", 1, 0, "failed", reason))])
    (found,) = run_status(run.record()).by_operator
    assert (found.kind, found.operator, found.births, found.ok) == ("child", operator or "", 1, 0)
    assert [row.operator for row in run.record().pending] == [operator]


def test_a_run_whose_first_children_all_failed_cannot_go_on(run: Run) -> None:
    run.born(1, "failed")
    assert failure(run) is None  # the other one is not born yet
    run.born(1, "failed", "lost")
    assert failure(run) == "all 2 children of generation 1 failed"
    text = CliRunner().invoke(status, [str(run.path)]).stdout
    assert "state     failed, and cannot go on: all 2 children of generation 1 failed; mend" in text
    assert "again with another --run-dir\n" in text
    assert "resume" not in text


def test_a_run_whose_children_all_failed_once_goes_on(run: Run) -> None:
    run.finished(1, "ok", "failed")
    run.born(2, "failed", "failed")
    assert failure(run) is None


def test_a_run_whose_children_all_failed_twice_in_a_row_cannot_go_on(run: Run) -> None:
    run.finished(1, "ok", "failed")
    run.finished(2, "failed", "lost")
    assert failure(run) is None
    run.born(3, "failed", "failed")
    assert failure(run) == "all 2 children of generations 2 and 3 failed"


def test_rejected_children_do_not_end_a_run(run: Run) -> None:
    run.born(1, "rejected", "failed")
    assert failure(run) is None


def test_a_run_without_a_founder_cannot_go_on(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", "distillation.students=3")
    run.stages(*BEFORE[:-1])
    run.born(0, "rejected", "rejected", phase="students")
    assert failure(run) is None
    run.born(0, "rejected", "failed", "rejected", phase="students")
    assert failure(run) == "all 3 students came to nothing"
    other = Run(tmp_path / "other", "distillation.ancestor=shared")
    other.stages(*BEFORE[:-1])
    other.born(0, "failed", phase="ancestor")
    assert failure(other) == "the ancestor came to nothing"
