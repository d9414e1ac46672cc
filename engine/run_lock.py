"""The lock of a run directory: one process writes to it at a time."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from engine.errors import RunDirectoryError
from engine.layout import LOCK

WAITS_S = (0.05, 0.2, 0.5, 0.0)


def take_lock(path: Path) -> IO[str]:
    """Take the lock of a run directory; the kernel gives it back when this process ends.

    Raises:
        RunDirectoryError: Another process holds it.
    """
    try:
        file = (path / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"cannot lock {path}: {error.strerror}") from error
    for wait_s in WAITS_S:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(wait_s)  # ``cultivar status`` tries the lock for an instant
    else:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise RunDirectoryError(
            f"{path} is in use by process {holder}; wait for it, or stop it first"
        )
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
