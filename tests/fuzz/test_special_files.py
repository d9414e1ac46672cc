"""A pipe, a device or a folder in place of any file that somebody else may have put there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzzing.readers import Reader, readers
from fuzzing.trial import try_file

READERS = [reader for reader in readers(2**20) if reader.reads_a_path]


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    def too_long(*_: object) -> None:
        pytest.fail("the reader waits")  # no Exception, which a reader could catch

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.found_in(
    *("genome", "pack of genomes", "float weights", "states, .npy", "states of a stage, .npz"),
    *("journal", "journal, as status reads it", "journal, as resume reads it", "champion.json"),
    *("recipes.csv", "leaderboard", "configuration", "settings of a fine-tuning"),
)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "terabyte"])
@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_what_is_no_file_is_refused(
    reader: Reader, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = reader.prepare(tmp_path)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    outcome, why = try_file(reader.read, path)
    assert outcome == "rejected", f"{outcome}: {why}"
