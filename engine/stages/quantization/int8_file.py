"""Whether a file is what it is said to be: int8 tensors, read back from disk."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.errors import StageError
from populations.genome import Genome


@dataclass(frozen=True)
class Int8File:
    """What was found in the file of an int8 network.

    Attributes:
        linear_layers: Linear layers whose weight is int8.
        tensor_bytes: Bytes of all tensors as they are stored.
        file_bytes: Size of the file, with names and padding.
    """

    linear_layers: int
    tensor_bytes: int
    file_bytes: int


def tensor_bytes(genome: Genome) -> int:
    """Return the bytes that codes, scales and vectors of a genome take."""
    return sum(tensor.nbytes for tensor in genome.tensors().values())


def check_int8_file(path: Path, genome: Genome) -> Int8File:
    """Read back the file of an int8 network, without unpickling anything but tensors.

    AgentFarm's QAT wrote float32 weights and called them int8, so this is looked up, not assumed:
    dtypes and numbers of all tensors, and how many bytes of the file they take.

    Args:
        path: A file of ``checkpoints.save_int8``.
        genome: What it should hold.

    Raises:
        StageError: It holds something else.
    """
    loaded = torch.load(path, weights_only=True)
    expected = genome.tensors()
    if list(loaded) != list(expected):
        raise StageError(f"{path}: expected the tensors {list(expected)}, not {list(loaded)}")
    for name, tensor in expected.items():
        found = loaded[name].numpy()
        if found.dtype != tensor.dtype or not np.array_equal(found, tensor):
            raise StageError(
                f"{path}: expected the {tensor.dtype} numbers of {name} that were written, "
                f"but it holds other ones, of {found.dtype}"
            )
    with zipfile.ZipFile(path) as archive:  # torch keeps each tensor as a member of data/
        stored = sum(info.file_size for info in archive.infolist() if "/data/" in info.filename)
    if stored != tensor_bytes(genome):
        raise StageError(
            f"{path}: expected {tensor_bytes(genome)} bytes of tensors on disk, not {stored}"
        )
    int8 = [name for name in genome.spec.matrices if loaded[name].dtype == torch.int8]
    return Int8File(len(int8), stored, path.stat().st_size)
