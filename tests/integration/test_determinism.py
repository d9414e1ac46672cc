"""One seed gives the same bytes, whatever carries the run out and however often it is stopped."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from engine.config import DispatchConfig
from engine.config_file import load_config
from engine.evolution import evolve
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from populations.journal import read_journal

AFTER_TEACHERS_BEGAN = b'"type":"run"'
AFTER_BASELINES = b'"stage":"baselines"'
WITHIN_GENERATION_1 = b'"generation":1,"genome":"'
AFTER_GENERATION_2 = b'"stage":"generation-2"'
AFTER_HOLDOUT = b'"phase":"holdout"'


def rows(run_directory: Path) -> list[dict[str, str]]:
    with (run_directory / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stages(run_directory: Path) -> list[str]:
    return [e["stage"] for e in read_journal(run_directory / "journal.jsonl") if "stage" in e]


def test_the_small_run_is_worth_comparing(reference) -> None:
    bred = [row for row in rows(reference) if row["kind"] == "child" and row["child"]]
    assert sum(row["status"] == "ok" for row in bred) >= 10
    assert len({row["genome"] for row in bred}) >= 10
    assert len({row["fitness"] for row in bred}) >= 10
    assert len({row["operator"] for row in bred}) >= 3
    assert len(list((reference / "genomes").iterdir())) == 4


@pytest.mark.ray
def test_two_workers_of_a_running_cluster_write_the_same_bytes(
    ray_cluster, small, assert_same_outcome, tmp_path
) -> None:
    from engine.dispatch.ray_executor import RayExecutor

    config = load_config(small)
    with RunDirectory.open(tmp_path / "run", config) as directory:
        evolve(directory, RayExecutor(config.dispatch), SilentProgress())
    assert_same_outcome(tmp_path / "run")


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_on_ray_writes_the_same_bytes_and_leaves_nothing_behind(
    start, small, assert_same_outcome, tmp_path, workers
) -> None:
    command = start("evolve", small, "--workers", str(workers), "--run-dir", tmp_path / "run")
    code, out, errors = command.end()
    assert code == 0, errors
    assert out.count("champion ") == 1
    assert_same_outcome(tmp_path / "run")
    assert command.left_over() == {}
    assert [path.name for path in command.folder.iterdir()] == ["stderr"]


@pytest.mark.parametrize(
    "moment",
    [
        AFTER_TEACHERS_BEGAN,
        AFTER_BASELINES,
        WITHIN_GENERATION_1,
        AFTER_GENERATION_2,
        AFTER_HOLDOUT,
    ],
)
def test_a_killed_run_resumes_to_the_same_bytes(
    start, cultivar, small, assert_same_outcome, tmp_path, moment
) -> None:
    run = tmp_path / "run"
    command = start("evolve", small, "--run-dir", run, slow_disk=True)
    command.wait_for(run / "journal.jsonl", moment)
    command.signal(signal.SIGKILL)
    assert command.end()[0] == -signal.SIGKILL
    assert "champion" not in stages(run)

    code, out, errors = cultivar("resume", run)
    assert code == 0, errors
    assert "champion " in out
    assert_same_outcome(run)


@pytest.mark.ray
def test_a_killed_run_on_ray_takes_its_workers_along_and_resumes_to_the_same_bytes(
    start, cultivar, small, assert_same_outcome, tmp_path
) -> None:
    run = tmp_path / "run"
    command = start("evolve", small, "--workers", "2", "--run-dir", run, slow_disk=True)
    command.wait_for(run / "journal.jsonl", WITHIN_GENERATION_1)
    command.signal(signal.SIGKILL)
    assert command.end()[0] == -signal.SIGKILL
    # Ray's agents and monitors take half a minute to notice, but they compute nothing.
    computing = ("ray::IDLE", "ray::run_batch", "ray::warm_up", "raylet/raylet", "engine.cli")
    deadline = time.monotonic() + 20
    while left := [c for c in command.left_over().values() if any(n in c for n in computing)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)

    assert cultivar("resume", run, "--workers", "0")[0] == 0
    assert_same_outcome(run)


def test_a_journal_that_ends_anywhere_resumes_to_the_same_bytes(
    cultivar, reference, assert_same_outcome, tmp_path
) -> None:
    lines = (reference / "journal.jsonl").read_bytes().splitlines(keepends=True)
    moments = [1, 3, 4, 5, 6, 9, 12, 13, 14, *range(18, len(lines), 9), len(lines) - 1]
    for moment in moments:
        run = tmp_path / f"run-{moment}"
        shutil.copytree(reference, run)
        half = lines[moment][: len(lines[moment]) // 2] if moment % 2 else b""
        (run / "journal.jsonl").write_bytes(b"".join(lines[:moment]) + half)
        code, _, errors = cultivar("resume", run)
        assert code == 0, errors
        assert ("dropped a half-written last line" in errors) == bool(half)
        assert_same_outcome(run)


def test_a_run_whose_files_were_not_written_yet_resumes_to_the_same_bytes(
    cultivar, reference, assert_same_outcome, tmp_path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"stage":"generation-1"' in line)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:last]))
    for name in ("champion.safetensors", "champion.json", "leaderboard.csv", "recipes.csv"):
        (run / name).unlink()
    for number in (1, 2, 3):
        (run / f"genomes/gen-000{number}.safetensors").unlink()
    assert cultivar("resume", run)[0] == 0
    assert_same_outcome(run)


def test_a_half_written_last_line_is_dropped_and_told(
    cultivar, reference, assert_same_outcome, tmp_path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    content = (run / "journal.jsonl").read_bytes()
    (run / "journal.jsonl").write_bytes(content[:-7])
    dropped = len(content.splitlines(keepends=True)[-1]) - 7
    code, _, errors = cultivar("resume", run)
    assert code == 0
    assert f"dropped a half-written last line of {run}/journal.jsonl ({dropped} bytes)" in errors
    assert_same_outcome(run)
    assert (run / "journal.jsonl").read_bytes().count(b"\n") == content.count(b"\n")


def test_a_corrupt_line_is_an_error_that_names_it_and_changes_nothing(
    cultivar, reference, tmp_path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    lines[8] = lines[8].replace(b'"index"', b'"jndex"')
    (run / "journal.jsonl").write_bytes(b"".join(lines))
    before = contents(run)
    code, _, errors = cultivar("resume", run, "--quiet")
    assert code == 2
    assert errors.startswith(f"JournalError: {run}/journal.jsonl, line 9: ")
    assert errors.count("\n") == 1
    assert contents(run) == before


def test_a_finished_run_is_not_touched_and_shows_its_champion_again(
    cultivar, small, reference, tmp_path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    before = contents(run)
    champion = json.loads((run / "champion.json").read_text())["genome"]
    for arguments in (("evolve", small, "--run-dir", run), ("resume", run)):
        code, out, errors = cultivar(*arguments)
        assert code == 0, errors
        assert f"champion {champion}, " in out
        assert contents(run) == before


def test_a_run_that_was_stopped_by_an_event_resumes_to_the_same_bytes(
    small, assert_same_outcome, tmp_path
) -> None:
    from engine.dispatch.serial import SerialExecutor
    from engine.errors import RunInterruptedError

    config = load_config(small)
    stop = threading.Event()

    class StopsInGeneration2(SilentProgress):
        def generation(self, summary) -> None:
            if summary.generation == 2:
                stop.set()

    run = tmp_path / "run"
    with (
        RunDirectory.open(run, config) as directory,
        pytest.raises(RunInterruptedError, match=f"cultivar resume {run}"),
    ):
        evolve(directory, SerialExecutor(DispatchConfig()), StopsInGeneration2(), stop)
    assert stages(run)[-1] == "generation-2"
    with RunDirectory.resume(run) as directory:
        evolve(directory, SerialExecutor(DispatchConfig()), SilentProgress())
    assert_same_outcome(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on_and_resumes_to_the_same_bytes(
    start, cultivar, small, assert_same_outcome, tmp_path, number
) -> None:
    run = tmp_path / "run"
    command = start("evolve", small, "--run-dir", run, slow_disk=True)
    command.wait_for(run / "journal.jsonl", WITHIN_GENERATION_1)
    command.signal(number)
    code, out, errors = command.end()
    assert code == 130, errors
    assert out == ""
    assert "stopping after what is in flight; once more stops at once" in errors
    assert errors.endswith(f"stopped; go on with 'cultivar resume {run}'\n")
    assert "generation-1" not in stages(run)

    assert cultivar("resume", run)[0] == 0
    assert_same_outcome(run)


@pytest.mark.ray
def test_ctrl_c_on_a_terminal_stops_a_run_on_ray_in_order(
    start, cultivar, small, assert_same_outcome, tmp_path
) -> None:
    run = tmp_path / "run"
    command = start("evolve", small, "--workers", "1", "--run-dir", run, slow_disk=True)
    command.wait_for(run / "journal.jsonl", WITHIN_GENERATION_1)
    command.signal(signal.SIGINT, to_all=True)
    code, _, errors = command.end()
    assert code == 130, errors
    assert errors.endswith(f"stopped; go on with 'cultivar resume {run}'\n")
    assert "Traceback" not in errors
    assert command.left_over() == {}
    assert [path.name for path in command.folder.iterdir()] == ["stderr"]
    recorded = [e for e in read_journal(run / "journal.jsonl") if e.get("phase") == "children"]
    assert {e["status"] for e in recorded} == {"ok"}

    assert cultivar("resume", run, "--workers", "0")[0] == 0
    assert_same_outcome(run)


def test_a_second_ctrl_c_stops_at_once(start, small, tmp_path) -> None:
    run = tmp_path / "run"
    endless = "teachers.training.steps=[30000000]"
    command = start("evolve", small, "--set", endless, "--run-dir", run)
    command.wait_for(run / "journal.jsonl", AFTER_TEACHERS_BEGAN)
    command.wait_for(command.folder / "stderr", b"teachers")
    command.signal(signal.SIGINT)
    command.wait_for(command.folder / "stderr", b"stopping after what is in flight")
    command.signal(signal.SIGINT)
    began = time.monotonic()
    code, _, errors = command.end()
    assert time.monotonic() - began < 3
    assert code == 130
    assert errors.endswith(f"stopped at once; go on with 'cultivar resume {run}'\n")
    assert "Traceback" not in errors


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but the lock, which holds the number of the last process."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
