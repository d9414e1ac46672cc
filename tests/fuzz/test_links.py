"""Names and links in what comes from somebody else: nothing is written outside of a run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from fuzzing import samples, stage_files

from engine.errors import RunDirectoryError, StageError
from engine.layout import CHAMPION, CONFIG, JOURNAL, LOCK, RECIPES, SUMMARY
from engine.run_directory import RunDirectory
from engine.stages.roles import load_role
from populations.leaderboard import FILE_NAME, Columns
from populations.storage import write_atomically

OUTSIDE = b"somebody's thesis"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in samples.run().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "thesis").write_bytes(OUTSIDE)
    (path / ".thesis.1.tmp").write_bytes(OUTSIDE)
    return path


def untouched(outside: Path) -> bool:
    names = sorted(file.name for file in outside.iterdir())
    contents = {file.read_bytes() for file in outside.iterdir()}
    return names == [".thesis.1.tmp", "thesis"] and contents == {OUTSIDE}


@pytest.mark.found_in("journal, as resume reads it")
@pytest.mark.parametrize("name", [LOCK, JOURNAL, "genomes", "teachers"])
def test_a_link_that_would_be_written_through_is_refused(run, outside, name) -> None:
    link = run / name
    link.unlink(missing_ok=True)
    target = outside if name in ("genomes", "teachers") else outside / "thesis"
    link.symlink_to(target)
    with pytest.raises(RunDirectoryError, match=f"{name} is a link to {re.escape(str(target))}"):
        RunDirectory.resume(run)
    assert untouched(outside)


def test_a_link_to_nothing_does_not_become_a_file(run, tmp_path) -> None:
    (run / LOCK).unlink(missing_ok=True)
    (run / LOCK).symlink_to(tmp_path / "new")
    with pytest.raises(RunDirectoryError, match="is a link to"):
        RunDirectory.resume(run)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [FILE_NAME, RECIPES, CHAMPION, SUMMARY, CONFIG])
def test_whole_files_are_put_in_place_of_a_link(run, outside, name) -> None:
    link = run / name
    link.unlink(missing_ok=True)
    link.symlink_to(outside / "thesis")
    if name == FILE_NAME:
        (run / "config.yaml").write_bytes(samples.run()[CONFIG])
        with RunDirectory.resume(run) as directory:
            directory.open_leaderboard(Columns(teachers=["teacher-0", "teacher-1"]))
    else:
        write_atomically(link, b"new")
    assert not link.is_symlink()
    assert untouched(outside)


def test_a_run_directory_may_be_a_link_itself(run, tmp_path) -> None:
    (tmp_path / "linked").symlink_to(run)
    with RunDirectory.resume(tmp_path / "linked") as directory:
        assert directory.stage("teachers") is not None


def test_temporary_files_that_are_links_are_not_written_through(run, outside) -> None:
    link = run / f".{SUMMARY}.{os.getpid()}.tmp"
    link.symlink_to(outside / "thesis")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(run / SUMMARY, b"new")
    assert untouched(outside)


@pytest.mark.found_in("child of a search that goes on", "search_config.json")
def test_a_search_does_not_go_on_in_the_folder_of_a_link(tmp_path, outside) -> None:
    for name, content in stage_files.files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    child = (tmp_path / stage_files.child_file("run_config.json")).parent
    for file in child.iterdir():
        file.unlink()
    child.rmdir()
    child.symlink_to(outside)
    with pytest.raises(RunDirectoryError, match="put the real folder in its place"):
        stage_files.go_on(tmp_path / stage_files.SETTINGS)
    assert untouched(outside)


@pytest.mark.found_in("sidecar of a network")
@pytest.mark.parametrize("file", ["../seen.npy", "/etc/passwd", "a/b", "..", ""])
def test_what_a_network_saw_lies_beside_it(tmp_path, file) -> None:
    for name, content in stage_files.files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    path = tmp_path / f"{stage_files.PARENT}.json"
    sidecar = json.loads(path.read_bytes())
    sidecar["replay_states"]["file"] = file
    path.write_text(json.dumps(sidecar))
    with pytest.raises(StageError, match=r"expected replay_states\.file to be the name of a file"):
        load_role("parent", tmp_path / stage_files.PARENT)
