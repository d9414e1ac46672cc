"""Opening files of others: regular ones only, and of a size that such a file can have.

A named pipe keeps its reader waiting for somebody to write, and a device such as ``/dev/zero``
never ends. What is refused here is an ``OSError`` like any other file that cannot be read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

StrPath = str | os.PathLike[str]

LARGEST = 2**33
"""Bytes of a file that is read whole: a file full of holes has any size and takes no disk."""
LONGEST_LINE = 2**27
"""Characters of a line of a table."""
KINDS = {
    stat.S_IFIFO: "it is a named pipe, not a file; write what comes out of it to a file first",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}


def only_regular(path: str, flags: int) -> int:
    """Open a file or a folder, and nothing else; for ``open(..., opener=only_regular)``.

    Returns:
        The file descriptor.

    Raises:
        OSError: It is a pipe, a socket or a device, or cannot be opened.
    """
    # Before it is opened: to open some devices does something. And after: it may be another one.
    if not flags & os.O_CREAT:
        _check_kind(path, Path(path).stat().st_mode)
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    try:
        _check_kind(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def no_link(path: str, flags: int) -> int:
    """Open a file, but not through a link; for ``open(..., opener=no_link)``.

    Raises:
        OSError: It is a link, or cannot be opened.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def read_regular(path: StrPath, most: int = LARGEST) -> bytes:
    """Read a whole file.

    Args:
        path: The file.
        most: Bytes that such a file can have.

    Raises:
        OSError: It is no regular file, is larger, or cannot be read.
    """
    with open(path, "rb", opener=only_regular) as file:
        return file.read(size_of(file, most))


def size_of(file: IO[bytes], most: int = LARGEST) -> int:
    """Return the bytes of an open file.

    Raises:
        OSError: They are more than ``most``.
    """
    n_bytes = os.fstat(file.fileno()).st_size
    if n_bytes > most:
        raise OSError(errno.EINVAL, f"it has {n_bytes:,} bytes, more than {most:,}")
    return n_bytes


def lines_of(file: IO[str]) -> Iterator[str]:
    """Yield the lines of a text, each read whole.

    Raises:
        ValueError: A line is too long.
    """
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"a line has {LONGEST_LINE:,} characters or more")
        yield line


def sha256_of(path: StrPath) -> str:
    """Return the SHA-256 of a file, which is not held in memory.

    Raises:
        OSError: It is no regular file, is too large for any, or cannot be read.
    """
    with open(path, "rb", opener=only_regular) as file:
        size_of(file)
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_regular(path: StrPath) -> bool:
    """Tell whether there is a regular file that is not too large to be read.

    A path that no file can have is that of none.
    """
    try:
        found = Path(path).stat()
    except (OSError, ValueError):  # it is missing; its name is too long, or holds a null byte
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST


def _check_kind(path: str, mode: int) -> None:
    kind = KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise OSError(errno.EINVAL, kind, str(path))
