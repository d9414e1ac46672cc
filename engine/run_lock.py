"""The lock of a run directory: one process writes to it at a time.

The kernel holds the lock for the open file: it is gone with its process, however that ended, and a
copy of the file, in a run directory that was copied, locks nothing. On NFS, Linux asks the server
for it (NFS 3 with its lock service, and NFS 4; not where it is mounted with ``nolock`` or
``local_lock``), so that processes on several machines lock one another out; where a machine dies,
the server may hold its locks for some minutes.

What the file holds is only for others to read: who has the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from engine.errors import RunDirectoryError
from engine.layout import LOCK
from engine.run_links import check_links
from engine.write_failure import advice
from populations.regular_files import only_regular

WAITS_S = (0.05, 0.2, 0.5, 0.0)
LONGEST = 1000
"""Characters of the file that are read."""
UNKNOWN = "an unknown process"


@dataclass(frozen=True)
class Holder:
    """The process that has a lock, as it says itself.

    Attributes:
        pid: Its id, on its machine.
        host: Name of the machine.
        since: When it took the lock, ISO 8601 in UTC.
        why: What for, where it does not carry the run out.
    """

    pid: int
    host: str
    since: str
    why: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}{self.why and f', {self.why}'}"


def holder_of(path: Path) -> Holder | str | None:
    """Return who holds the lock of a run directory, or None where nobody does.

    The lock is tried, shared and for an instant: the kernel gives back that of a dead process.

    Returns:
        The holder, or ``UNKNOWN`` where the file does not tell.
    """
    try:
        file = open(path / LOCK, encoding="utf-8", opener=only_regular)  # noqa: SIM115  # below
    except OSError:
        return None  # nobody has ever worked here, or the directory was copied without it
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(file)
        except OSError:
            return None  # a file system without locks, on which nobody can hold one
    return None


def take_lock(path: Path, why: str = "") -> IO[str]:
    """Take the lock of a run directory; the kernel gives it back when this process ends.

    Args:
        path: The run directory.
        why: What for, if not to carry the run out.

    Raises:
        RunDirectoryError: Another process holds it, the file system refuses, or a link leads out.
    """
    check_links(path)
    try:
        file = open(path / LOCK, "a+", encoding="utf-8", opener=only_regular)  # noqa: SIM115  # kept
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
        holder = _read(file)
        file.close()
        elsewhere = isinstance(holder, Holder) and holder.host != socket.gethostname()
        raise RunDirectoryError(
            f"{path} is in use by {holder}; wait for it, or stop it "
            f"{'on that machine, which is another one' if elsewhere else 'first'}"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    me = Holder(os.getpid(), socket.gethostname(), now, why)
    # Where the disk is full, the next file that is written tells.
    with contextlib.suppress(OSError):
        file.truncate(0)
        os.write(file.fileno(), f"{json.dumps(asdict(me))}\n".encode())  # leaves nothing for later
    return file


def _read(file: IO[str]) -> Holder | str:
    """Return what the file of a lock says of its holder; anybody may have written it."""
    try:
        file.seek(0)
        found = json.loads(file.read(LONGEST))
        texts = (str(found["host"]), str(found["since"]), str(found.get("why", "")))
        holder = Holder(int(found["pid"]), *texts)
    except (
        AttributeError,
        KeyError,
        OSError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ):
        return UNKNOWN
    return holder if str(holder).isprintable() else UNKNOWN


def _refusal(path: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(f"cannot lock {path}: {error.strerror}; {advice(path, error.errno)}")
