"""What to say where a run cannot write: what, why, how much is free, and how to go on."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from engine.errors import RunDirectoryError
from engine.layout import JOURNAL
from populations.errors import JournalError, LeaderboardError

MEND = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "lift the limit on the size of a file (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EIO: "look at the disk",
    errno.ENOENT: "put its folder back",
    errno.ENOTDIR: "put its folder back",
}
"""What a user can do about it; other errors of the system are no trouble with writing."""
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def write_failure(run: Path, error: BaseException) -> RunDirectoryError | None:
    """Return the error that tells a user what could not be written, or None for any other error.

    Args:
        run: The run directory.
        error: What was raised while it was open.
    """
    if isinstance(error, JournalError | LeaderboardError):
        cause, text = error.__cause__, str(error)
        if not isinstance(cause, OSError):
            return None
    elif isinstance(error, OSError):
        named = error.filename2 or error.filename  # of a rename, the target
        if not isinstance(named, str) or not _is_within(Path(named), run):
            return None
        cause, text = error, f"cannot write {named}: {error.strerror}"
    else:
        return None
    if cause.errno not in MEND:
        return None
    return RunDirectoryError(f"{text}{_room(run, cause.errno)}; {advice(run, cause.errno)}")


def advice(run: Path, number: int | None) -> str:
    """Return what to do about an error of the system, and how to go on then.

    Args:
        run: The run directory.
        number: The ``errno``.
    """
    mend = MEND.get(number or 0, "mend that")
    if (run / JOURNAL).is_file():
        return f"what was finished is recorded: {mend}, then go on with 'cultivar resume {run}'"
    return f"nothing was done yet: {mend}, then give the same command again"


def _is_within(path: Path, run: Path) -> bool:
    return path.absolute().is_relative_to(run.absolute())


def _room(run: Path, number: int) -> str:
    """Return how much is free, where that is what it is about."""
    if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ""
    folder = next(part for part in (run, *run.absolute().parents) if part.exists())
    return f" ({_size(shutil.disk_usage(folder).free)} free there)"


def _size(n_bytes: float) -> str:
    for unit in UNITS[:-1]:
        if n_bytes < 1000:
            return f"{n_bytes:.{0 if unit == 'bytes' else 1}f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} {UNITS[-1]}"
