"""The lock of a run directory: one process writes to it at a time.

The kernel holds the lock for the open file: it is gone with its process, however that ended, and a
copy of the file, in a run directory that was copied, locks nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from engine.errors import RunDirectoryError
from engine.layout import LOCK
from engine.write_failure import advice

WAITS_S = (0.05, 0.2, 0.5, 0.0)


def take_lock(path: Path) -> IO[str]:
    """Take the lock of a run directory; the kernel gives it back when this process ends.

    Raises:
        RunDirectoryError: Another process holds it, or the file system refuses.
    """
    try:
        file = (path / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise _refusal(path, error) from error
    for wait_s in WAITS_S:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(wait_s)  # ``cultivar status`` tries the lock for an instant
        except OSError as error:  # such as that of a network without locks
            file.close()
            raise _refusal(path, error) from error
    else:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise RunDirectoryError(
            f"{path} is in use by process {holder}; wait for it, or stop it first"
        )
    # The number is for others to read. Where the disk is full, the next file that is written tells.
    with contextlib.suppress(OSError):
        file.truncate(0)
        os.write(file.fileno(), f"{os.getpid()}\n".encode())  # leaves nothing for later
    return file


def _refusal(path: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(f"cannot lock {path}: {error.strerror}; {advice(path, error.errno)}")
