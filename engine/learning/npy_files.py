"""Arrays in ``.npy`` and ``.npz`` files of others, whose headers are Python literals."""

from __future__ import annotations

import contextlib
import io
import math
import tokenize
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.learning.archives import ZIP_DAMAGE, members
from populations.regular_files import only_regular

NPY_DAMAGE = (
    *ZIP_DAMAGE,
    TypeError,
    LookupError,
    FloatingPointError,  # a shape of more numbers than can be counted
    SyntaxError,
    tokenize.TokenError,  # a brace that is never closed
)
"""What NumPy raises for damaged files."""


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read arrays out of an archive, and check all sizes before they take memory.

    Args:
        path: What ``np.savez`` or ``np.savez_compressed`` wrote.
        names: The arrays to read.

    Raises:
        Exception: One of ``NPY_DAMAGE``: the file is damaged, lacks an array, or lies.
    """
    members(path, may_compress=True)
    # zipfile leaves a damaged file open if it opens it itself
    with (
        open(path, "rb", opener=only_regular) as file,
        zipfile.ZipFile(file) as archive,
        quiet_headers(),
    ):
        return {name: _array(archive.read(f"{name}.npy")) for name in names}


@contextlib.contextmanager
def quiet_headers() -> Iterator[None]:
    """Read headers of Python 2 without NumPy's advice to save the file again."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Reading `.npy` or `.npz` file required additional")
        yield


def check_header(file: IO[bytes], n_bytes: int) -> None:
    """Refuse a ``.npy`` file whose header claims to be longer than the file.

    NumPy would ask for as much memory, up to 4 GB, before it looks at what there is.

    Args:
        file: The file, at its beginning.
        n_bytes: Its size.

    Raises:
        ValueError: It does.
    """
    start = file.read(12)  # magic, version, and the length in two or four bytes
    length = int.from_bytes(start[8:10] if start[6:7] == b"\1" else start[8:12], "little")
    if length > n_bytes:
        raise ValueError(
            f"its header claims to have {length:,} bytes, but the file has {n_bytes:,}"
        )


def _array(content: bytes) -> NDArray[Any]:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"an array is of format {version}")
    if dtype.hasobject:
        raise ValueError("an array holds Python objects")
    numbers = np.frombuffer(content, dtype, offset=stream.tell())
    if len(numbers) != math.prod(shape):
        raise ValueError(f"an array of shape {shape} has {len(numbers):,} numbers")
    return numbers.reshape(shape, order="F" if is_fortran else "C").copy()
