"""What a user is told where a run cannot be written, and which errors are something else."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from engine.write_failure import MEND, write_failure
from populations.errors import JournalError, LeaderboardError


def os_error(number: int, path: Path | None = None) -> OSError:
    named = () if path is None else (str(path),)
    return OSError(number, os.strerror(number), *named)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run directory that has begun, on a disk with 12.3 MB left."""
    for name in ("config.yaml", "journal.jsonl"):
        (tmp_path / name).touch()
    usage = shutil.disk_usage(tmp_path)._replace(free=12_345_678)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    return tmp_path


@pytest.mark.parametrize("number", sorted(MEND))
def test_the_file_the_reason_and_the_way_on_are_told(run: Path, number: int) -> None:
    told = str(write_failure(run, os_error(number, run / "recipes.csv")))
    assert told.startswith(f"cannot write {run}/recipes.csv: {os.strerror(number)}")
    assert told.endswith(
        f"what was finished is recorded: {MEND[number]}, then go on with 'cultivar resume {run}'"
    )
    about_room = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    assert (" (12.3 MB free there); " in told) == about_room


def test_before_the_first_file_there_is_nothing_to_resume(run: Path) -> None:
    (run / "journal.jsonl").unlink()
    told = str(write_failure(run, os_error(errno.ENOSPC, run / "config.yaml")))
    assert told.endswith("nothing was done yet: make room, then give the same command again")
    gone = run / "gone" / "run"
    told = str(write_failure(gone, os_error(errno.ENOSPC, gone / "config.yaml")))
    assert "(12.3 MB free there)" in told


@pytest.mark.parametrize("kind", [JournalError, LeaderboardError])
def test_errors_that_the_disk_is_behind_are_told_with_the_way_on(
    run: Path, kind: type[Exception]
) -> None:
    error = kind("cannot write it: No space left on device")
    assert write_failure(run, error) is None  # of another cause, such as a corrupt line
    error.__cause__ = os_error(errno.ENOSPC)
    told = str(write_failure(run, error))
    assert told.startswith("cannot write it: No space left on device (12.3 MB free there); what ")


@pytest.mark.parametrize(
    "error",
    [
        os_error(errno.ENOSPC),
        os_error(errno.ENOSPC, Path("/elsewhere/file")),
        OSError("no number"),
        ValueError("no disk"),
        KeyboardInterrupt(),
    ],
)
def test_what_is_not_about_the_run_is_left_alone(run: Path, error: BaseException) -> None:
    assert write_failure(run, error) is None
    assert write_failure(run, os_error(errno.EINTR, run / "states.npz")) is None
