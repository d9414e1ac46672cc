"""Zip archives of others, looked at before anything is taken out: zip bombs, and worse.

A file of a few KB may claim to become gigabytes, and archives may be damaged in ways for which
zipfile has no error of its own.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from populations.regular_files import only_regular, size_of

ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,  # an offset before the beginning
    MemoryError,
    OverflowError,
    RuntimeError,  # an encrypted member; a compression that zipfile does not know
    ValueError,
)
"""What opening and reading a damaged archive can raise."""

ENCRYPTED = 0x1
MOST_EXPANSION = 100
"""Times its size that a compressed archive may become; numbers that were measured do not double."""
SMALL = 2**26
"""Bytes that an archive may become in any case."""


def members(path: Path, may_compress: bool = False) -> list[str]:
    """Return the names of the members of an archive that is safe to read.

    Args:
        path: The archive.
        may_compress: Whether members may be compressed, with deflate.

    Raises:
        ValueError: A member is encrypted, compressed, or claims to be larger than it can be.
        Exception: One of ``ZIP_DAMAGE``.
    """
    # zipfile leaves a damaged file open if it opens it itself
    with open(path, "rb", opener=only_regular) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        n_bytes = size_of(file)
    methods = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} if may_compress else {zipfile.ZIP_STORED}
    for entry in entries:
        if entry.flag_bits & ENCRYPTED:
            raise ValueError(f"{entry.filename} is encrypted")
        if entry.compress_type not in methods:
            raise ValueError(f"{entry.filename} is compressed, which such a file never is")
    claimed = sum(entry.file_size for entry in entries)
    most = max(SMALL, MOST_EXPANSION * n_bytes) if may_compress else n_bytes
    if claimed > most:
        raise ValueError(f"it claims to hold {claimed:,} bytes, but has {n_bytes:,}")
    return [entry.filename for entry in entries]
