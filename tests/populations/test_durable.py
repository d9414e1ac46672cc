"""What is on the disk when a write returns, told from the calls that the system gets."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from populations.durable import make_folder, sync_folder
from populations.journal import Journal
from populations.leaderboard import Columns, LeaderboardWriter
from populations.tensor_file import write_atomically

Calls = list[tuple[str, Path]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Return the calls that make something durable, in their order, each with what it is about."""
    made: Calls = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        made.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def replaced(source: str, target: str) -> None:
        made.append(("replace", Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    return made


def refusing(number: int) -> Callable[[int], None]:
    """Return an fsync that fails for folders."""
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    return refuse


def test_content_then_name_then_folder(tmp_path: Path, calls: Calls) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"content")
    temporary = tmp_path / f".file.{os.getpid()}.tmp"
    assert calls == [("fsync", temporary), ("replace", file), ("fsync", tmp_path)]


def test_a_leaderboard_is_replaced_in_the_same_order(tmp_path: Path, calls: Calls) -> None:
    file = tmp_path / "leaderboard.csv"
    with LeaderboardWriter(file, Columns()) as writer:
        writer.rewrite([])
    temporary = tmp_path / f".leaderboard.csv.{os.getpid()}.tmp"
    assert calls == [("fsync", temporary), ("replace", file), ("fsync", tmp_path)]
    with LeaderboardWriter(file, Columns()) as writer:
        writer.append([])
        writer.append([])
    assert calls[3:] == [("fsync", file)]  # once, at the end: the journal has all of it


def test_a_journal_gets_its_name_once_and_then_costs_one_call_per_append(
    tmp_path: Path, calls: Calls
) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal.create(file) as journal:
        assert calls == [("fsync", file), ("fsync", tmp_path)]
        calls.clear()
        journal.append([{"type": "a"}, {"type": "b"}])
        journal.append([{"type": "c"}])
    assert calls == [("fsync", file)] * 2


def test_every_new_folder_is_named_for_good_by_the_one_above(tmp_path: Path, calls: Calls) -> None:
    make_folder(tmp_path / "a/b")
    assert calls == [("fsync", tmp_path), ("fsync", tmp_path / "a")]
    calls.clear()
    make_folder(tmp_path / "a/b")
    assert calls == []
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file/b")


def test_a_file_system_that_cannot_sync_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    write_atomically(tmp_path / "folder/file", b"content")
    assert (tmp_path / "folder/file").read_bytes() == b"content"


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error") as told:
        write_atomically(tmp_path / "file", b"content")
    assert told.value.filename == str(tmp_path / "file")
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)
