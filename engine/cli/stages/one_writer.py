"""One process at a time writes into the folder of a stage, or two would mix their files."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.cli.stages.options import F


def one_writer(function: F) -> F:
    """Lock ``output_dir`` while a command runs; a second command there is refused."""

    @functools.wraps(function)
    def locked(*args: Any, output_dir: Path, **kwargs: Any) -> Any:
        with _locked(output_dir):
            return function(*args, output_dir=output_dir, **kwargs)

    return locked  # type: ignore[return-value]  # called as F is


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, and leave neither the lock nor a new folder without files."""
    from engine.layout import LOCK
    from engine.run_lock import take_lock

    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    lock = take_lock(folder)
    while not (path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno()))):
        lock.close()  # the lock of a run that has just ended
        lock = take_lock(folder)
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if is_new:
                with contextlib.suppress(OSError):  # it holds files now
                    folder.rmdir()
