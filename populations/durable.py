"""Names of files that outlast a power failure.

A file whose content is on the disk can still lose its name, or get its old content back, as long as
the folder that names it is not on the disk, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import IO, Any

NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)
"""What file systems say that cannot write a folder to disk on demand, or a folder that one may
write to but not read."""
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
"""What file systems say of a path that leads to nothing."""


def is_named(file: IO[Any], path: Path) -> bool:
    """Tell whether a path leads to a file that is open, not to nothing or to another file.

    Raises:
        OSError: The disk refuses to tell.
    """
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError as error:
        if error.errno in GONE:
            return False
        raise


def put_in_place(temporary: Path, target: Path) -> None:
    """Give a file that is whole, and on the disk, its name; it has it for good when this returns.

    Raises:
        OSError: The folder cannot be written.
    """
    temporary.replace(target)
    sync_folder(target.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for good.

    Raises:
        OSError: One of them cannot be made, or is a file.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can do that.

    Raises:
        OSError: The disk refuses.
    """
    with contextlib.ExitStack() as files:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            files.callback(os.close, descriptor)
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in NOT_FOR_FOLDERS:
                raise
