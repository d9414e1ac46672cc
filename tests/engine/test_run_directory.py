from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import run_directory
from engine.config import DispatchConfig, RunConfig
from engine.config_file import dump_config, load_config
from engine.errors import RunDirectoryError, RunInterruptedError
from engine.layout import LOCK, pack_path
from engine.records import result_from_event
from engine.run_directory import RunDirectory
from engine.run_lock import holder_of
from engine.strict_yaml import parse_yaml, write_yaml
from populations.errors import JournalError
from populations.genome import Genome, Lineage
from populations.journal import Journal, read_journal
from populations.leaderboard import Columns, Row, load_leaderboard
from populations.network import NetworkSpec
from populations.plans import Result
from populations.storage import load_pack
from populations.tensor_file import canonical_json

COLUMNS = Columns(teachers=["teacher-0"])


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(seed=3)


@pytest.fixture
def genome() -> Genome:
    spec = NetworkSpec((4,), (3,), 2)
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(size=s).astype(np.float32) for n, s in spec.shapes.items()}
    return Genome.from_weights(spec, weights, Lineage("student", 0, 0, (), "clone", ""), "float32")


def ok(index: int, genome: Genome | None = None) -> Result:
    return Result(
        "children", 1, index, "ok", genome=genome, returns=(1.0, 2.5), agreements=(0.1,), kl=0.3
    )


def test_a_new_directory_holds_its_configuration_and_what_it_runs_on(tmp_path, config) -> None:
    with RunDirectory.open(tmp_path / "a/run", config):
        pass
    assert load_config(tmp_path / "a/run/config.yaml") == config
    (event,) = read_journal(tmp_path / "a/run/journal.jsonl")
    assert event["type"] == "run"
    assert {"python", "torch", "numpy"} <= set(event["versions"])


def test_results_come_back_once_after_reopening(tmp_path, config, genome) -> None:
    with RunDirectory.open(tmp_path / "run", config) as directory:
        directory.record([ok(0, genome), Result("children", 1, 1, "failed", "no luck")])
        assert directory.recorded(("children", 1, 0)) is None
    with RunDirectory.open(tmp_path / "run", config) as directory:
        found = directory.recorded(("children", 1, 0))
        assert found is not None
        assert found.genome is not None
        assert found.genome.id == genome.id
        assert found.genome.lineage == genome.lineage
        assert (found.returns, found.agreements, found.kl) == ((1.0, 2.5), (0.1,), 0.3)
        failed = directory.recorded(("children", 1, 1))
        assert failed == Result("children", 1, 1, "failed", "no luck")
        assert directory.recorded(("children", 1, 0)) is None


def test_results_are_read_back_when_their_generation_is_asked_for(
    tmp_path, config, genome, monkeypatch
) -> None:
    n_generations, n_children = 3, 4
    with RunDirectory.open(tmp_path / "run", config) as directory:
        for generation in range(1, n_generations + 1):
            results = [
                replace(ok(index, genome), generation=generation) for index in range(n_children)
            ]
            directory.record(results[::-1])  # they arrive in any order
            directory.finish_stage(f"generation-{generation}", tuple)
    read = []
    monkeypatch.setattr(
        run_directory,
        "result_from_event",
        lambda event: read.append(event["generation"]) or result_from_event(event),
    )
    with RunDirectory.resume(tmp_path / "run") as directory:
        for generation in range(1, n_generations + 1):
            for index in range(n_children):
                assert directory.recorded(("children", generation, index)) is not None
                assert read == sorted([*range(1, generation + 1)] * n_children)
        directory.record([ok(9, genome)])
        assert directory.recorded(("children", 1, 9)) is None


def test_a_damaged_result_is_told_when_it_is_asked_for(tmp_path, config) -> None:
    RunDirectory.open(tmp_path / "run", config).close()
    journal, _ = Journal.open(tmp_path / "run/journal.jsonl")
    with journal:
        journal.append([{"type": "result", "phase": "children"}])
    with (
        RunDirectory.resume(tmp_path / "run") as directory,
        pytest.raises(JournalError, match=r"journal.jsonl holds an event that .*'generation'"),
    ):
        directory.recorded(("children", 1, 0))


def test_a_stage_is_finished_once_with_its_rows(tmp_path, config) -> None:
    with RunDirectory.open(tmp_path / "run", config) as directory:
        directory.open_leaderboard(COLUMNS)
        assert directory.stage("baselines") is None
        rows = [Row(run="r", kind="teacher", generation=0, fitness=1.5)]
        directory.finish_stage("baselines", lambda: rows, {"extra": [1]})
        before = (tmp_path / "run/leaderboard.csv").read_bytes()
    with RunDirectory.resume(tmp_path / "run") as directory:
        stage = directory.stage("baselines")
        assert stage is not None
        assert stage["extra"] == [1]
        directory.open_leaderboard(COLUMNS)
        directory.finish_stage("baselines", lambda: pytest.fail("made its rows twice"))
    assert (tmp_path / "run/leaderboard.csv").read_bytes() == before
    assert list(load_leaderboard([tmp_path / "run"])["fitness"]) == [1.5]


def test_rows_that_no_finished_stage_holds_are_dropped(tmp_path, config) -> None:
    with RunDirectory.open(tmp_path / "run", config) as directory:
        directory.open_leaderboard(COLUMNS)
    with (tmp_path / "run/leaderboard.csv").open("a", encoding="utf-8") as file:
        file.write("1,half a r")
    with RunDirectory.resume(tmp_path / "run") as directory:
        directory.open_leaderboard(COLUMNS)
    assert len(load_leaderboard([tmp_path / "run"])) == 0


def test_one_process_at_a_time(tmp_path, config) -> None:
    with RunDirectory.open(tmp_path / "run", config):
        for opener in (RunDirectory.open, RunDirectory.resume):
            with pytest.raises(RunDirectoryError, match=r"run is in use by process \d+ on "):
                opener(tmp_path / "run", config)
    RunDirectory.resume(tmp_path / "run").close()


def test_a_directory_that_cannot_be_opened_is_not_kept_locked(tmp_path, config) -> None:
    RunDirectory.open(tmp_path / "run", config).close()
    journal = tmp_path / "run/journal.jsonl"
    content = journal.read_bytes()
    for _ in range(2):
        journal.write_bytes(b"damaged\n")
        with pytest.raises(Exception, match="is not a journal"):
            RunDirectory.resume(tmp_path / "run")
    journal.write_bytes(content)
    RunDirectory.resume(tmp_path / "run").close()


def test_a_run_that_died_before_its_journal_goes_on(tmp_path, config) -> None:
    def die_after_the_configuration(run: Path) -> None:
        run.mkdir()
        (run / "run.lock").write_text("1\n", encoding="utf-8")
        (run / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        (run / ".config.yaml.123.tmp").write_text("half a configu", encoding="utf-8")

    die_after_the_configuration(tmp_path / "a")
    with RunDirectory.open(tmp_path / "a", config) as directory:
        assert directory.config == config
    die_after_the_configuration(tmp_path / "b")
    with RunDirectory.resume(tmp_path / "b") as directory:
        assert directory.config == config
    die_after_the_configuration(tmp_path / "c")
    with pytest.raises(RunDirectoryError, match="seed is 3 there and 4 here"):
        RunDirectory.open(tmp_path / "c", RunConfig(seed=4))


def test_name_and_dispatch_may_differ_from_the_recorded_ones(tmp_path, config) -> None:
    RunDirectory.open(tmp_path / "run", config).close()
    dispatch = config.dispatch.model_copy(update={"workers": 7})
    other = config.model_copy(update={"dispatch": dispatch, "name": "other"})
    with RunDirectory.open(tmp_path / "run", other) as directory:
        assert directory.config.dispatch.workers == 7
    assert load_config(tmp_path / "run/config.yaml") == config


def test_going_on_with_another_kind_of_cpu_is_noted(tmp_path, config) -> None:
    RunDirectory.open(tmp_path / "run", config).close()
    journal = tmp_path / "run/journal.jsonl"
    (event,) = read_journal(journal)
    journal.unlink()
    written = Journal.create(journal)
    written.append([event | {"cpu": "ABACUS"}])
    written.close()
    with RunDirectory.resume(tmp_path / "run") as directory:
        (note,) = directory.notes
    assert "since this run began, CPU ABACUS to " in note


def test_equal_genomes_are_stored_once(tmp_path, config, genome) -> None:
    with RunDirectory.open(tmp_path / "run", config) as directory:
        directory.save_genomes(4, [genome, genome])
        directory.save_genomes(5, [])
    assert list(load_pack(pack_path(tmp_path / "run", 4))) == [genome.id]
    assert not pack_path(tmp_path / "run", 5).exists()


def test_a_configuration_changed_by_hand_is_refused(tmp_path, config) -> None:
    with RunDirectory.open(tmp_path / "run", config):
        pass
    file = tmp_path / "run/config.yaml"
    file.write_text(file.read_text().replace("children: 64", "children: 65"))
    with pytest.raises(RunDirectoryError, match=r"config.yaml was changed after the run began"):
        RunDirectory.resume(tmp_path / "run")
    file.write_text(file.read_text().replace("children: 65", "children: 64"))
    RunDirectory.resume(tmp_path / "run").close()


def test_a_run_of_a_version_with_fewer_settings_goes_on(tmp_path, config) -> None:
    run = tmp_path / "run"
    RunDirectory.open(run, config).close()
    # What a version without these settings would have written.
    values = parse_yaml((run / "config.yaml").read_text(), "config.yaml")
    del values["finetune_presets"], values["evolution"]["bandit"]
    (run / "config.yaml").write_text(write_yaml(values))
    identity = {name: value for name, value in values.items() if name not in ("name", "dispatch")}
    fingerprint = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    (event,) = read_journal(run / "journal.jsonl")
    (run / "journal.jsonl").unlink()
    journal = Journal.create(run / "journal.jsonl")
    journal.append([event | {"config": fingerprint}])
    journal.close()
    with RunDirectory.resume(run) as directory:
        assert directory.config.evolution.bandit == config.evolution.bandit
        assert directory.notes == [
            f"{run / 'config.yaml'} is of an earlier version of cultivar; settings that are new "
            "since then have their defaults"
        ]
    # A change by hand is still one, also of a setting that is new.
    values["evolution"]["bandit"] = {"discount": 0.5}
    (run / "config.yaml").write_text(write_yaml(values))
    with pytest.raises(RunDirectoryError, match=r"config.yaml was changed after the run began"):
        RunDirectory.resume(run)


def test_a_run_goes_on_with_other_workers(tmp_path, config) -> None:
    with RunDirectory.open(tmp_path / "run", config):
        pass
    other = config.model_copy(update={"dispatch": DispatchConfig(workers=7)})
    RunDirectory.resume(tmp_path / "run", other).close()


WRITES: dict[str, Callable[[RunDirectory, Genome], object]] = {
    "record": lambda directory, genome: directory.record([ok(0, genome)]),
    "stage": lambda directory, genome: directory.finish_stage("baselines", list),
    "genomes": lambda directory, genome: directory.save_genomes(1, [genome]),
    "recipes": lambda directory, genome: directory.save_recipes([]),
    "leaderboard": lambda directory, genome: directory.open_leaderboard(COLUMNS),
}


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("became", ["deleted", "moved", "another run", "unlocked", "no journal"])
def test_nothing_is_written_where_the_directory_is_another_one(
    tmp_path, config, genome, write, became
) -> None:
    path, others = tmp_path / "run", None
    directory = RunDirectory.open(path, config)
    if became == "moved":
        path.rename(tmp_path / "moved")
    elif became == "unlocked":
        (path / LOCK).unlink()
    elif became == "no journal":
        (path / "journal.jsonl").unlink()
    else:
        shutil.rmtree(path)
    if became == "another run":
        others = RunDirectory.open(path, config.model_copy(update={"seed": 4}))
        others.record([ok(0, genome)])
    before = contents(tmp_path)
    told = "not the directory any more" if path.exists() else "was moved or deleted"
    with pytest.raises(RunDirectoryError, match=f"{told}.*go on with 'cultivar resume'"), directory:
        write(directory, genome)
    assert contents(tmp_path) == before
    assert path.exists() == (became not in ("deleted", "moved"))
    if others is not None:
        others.close()
    if became == "moved":
        with RunDirectory.resume(tmp_path / "moved") as resumed:
            write(resumed, genome)


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), RunInterruptedError("go on with r1")]
)
def test_what_is_told_of_a_deleted_directory_is_true(tmp_path, config, error) -> None:
    path = tmp_path / "run"
    directory = RunDirectory.open(path, config)
    shutil.rmtree(path)
    with pytest.raises(RunDirectoryError, match="was moved or deleted"), directory:
        raise error
    assert not path.exists()


def test_a_run_directory_may_itself_be_a_link(tmp_path, config, genome) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "run"
    link.symlink_to("real")
    for _ in range(2):
        with RunDirectory.open(link, config) as directory:
            for write in WRITES.values():
                write(directory, genome)
    assert link.is_symlink()
    assert list(load_pack(pack_path(tmp_path / "real", 1))) == [genome.id]


def test_nobody_holds_a_lock_on_a_file_system_without_locks(tmp_path, config, monkeypatch) -> None:
    with RunDirectory.open(tmp_path / "run", config):
        assert holder_of(tmp_path / "run") is not None
        monkeypatch.setattr(fcntl, "flock", refuse)
        assert holder_of(tmp_path / "run") is None


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
