"""Q-networks in ``.pt`` files: those trained elsewhere are read, ours are read and written.

Ours are plain state dicts that load with ``weights_only=True``: float32 tensors, or int8 codes with
their scales. This is the only reader and writer of such files.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import TeacherError
from engine.learning.agentfarm import is_pickled_module, read_pickled_module
from engine.learning.architecture import Arrays
from engine.learning.archives import ZIP_DAMAGE, members
from engine.learning.pickles import check_pickle
from engine.learning.state_dicts import Checkpoint, interpret
from populations.errors import GenomeFileError
from populations.genome import Genome
from populations.network import NetworkSpec, Weights
from populations.regular_files import is_regular
from populations.storage import load_genome, load_weights, read_tensors, write_atomically
from populations.tensor_file import METADATA_KEY

TORCH_SUFFIXES = (".pt", ".pth")
STATE_DICT_KEYS = (
    "state_dict",
    "model_state_dict",
    "q_network_state_dict",
    "policy_state_dict",
    "q_network",
    "q_net",
    "network",
    "model",
    "policy",
)
"""Where a checkpoint keeps its state dict; the first of these that it has is read."""

MOST_SHARED = 4
"""Tensors of a network that hold the same numbers, of which the file has one copy."""

OLD_PICKLES = 5
"""Magic number, version, system, tensors and keys of storages; then the storages follow."""

ADVICE = (
    "Expected a state dict saved with torch.save(model.state_dict(), path), or a .safetensors file"
)
# What torch.load is seen to raise for damaged files, or for pickles whose code does not run here.
LOAD_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
    AssertionError,
    MemoryError,
    struct.error,
)


def load_network(
    path: Path, allow_unsafe: bool = False, allow_non_finite: bool = False
) -> tuple[NetworkSpec, Arrays]:
    """Return architecture and float32 tensors of :func:`read_checkpoint`."""
    checkpoint = read_checkpoint(path, allow_unsafe, allow_non_finite)
    return checkpoint.spec, checkpoint.weights


def load_genome_file(path: Path) -> Genome:
    """Read a file of :func:`save_int8`.

    Returns:
        The genome, equal to the one that was saved but for its lineage, which the file lacks.

    Raises:
        TeacherError: The file is missing, damaged, or not an int8 network.
    """
    genome = read_checkpoint(path).genome
    if genome is None:
        raise TeacherError(f"{path}: expected an int8 network, but its weights are floating point")
    return genome


def read_checkpoint(
    path: Path, allow_unsafe: bool = False, allow_non_finite: bool = False
) -> Checkpoint:
    """Read a Q-network from a file of ours, or from one that torch or safetensors wrote.

    Args:
        path: A ``.safetensors``, ``.pt`` or ``.pth`` file.
        allow_unsafe: Unpickle a torch file that is more than a state dict, which runs whatever
            code is in it (except for modules of AgentFarm, whose code is never run). Without this
            such a file is refused.
        allow_non_finite: Whether NaN and infinity are let through.

    Raises:
        TeacherError: The file is missing, damaged, unsafe, or holds something else.
    """
    if not is_regular(path):
        raise TeacherError(f"{path}: expected the file of a trained Q-network, but there is none")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, allow_non_finite)
    if path.suffix in TORCH_SUFFIXES:
        content, unsafe = _load_torch(path, allow_unsafe)
        state = _state_dict(path, content)
        _check_numbers(path, state)
        found = interpret(path, state, allow_non_finite)
        return replace(found, unsafe=unsafe)
    raise TeacherError(
        f"{path}: expected a .safetensors, .pt or .pth file, not {path.suffix or 'no suffix'}"
    )


def save_network(path: Path, spec: NetworkSpec, weights: Weights) -> None:
    """Write a float32 network as a plain state dict; equal weights give equal bytes.

    Raises:
        GenomeShapeError: The weights are not those of ``spec``.
        GenomeValueError: A weight is NaN or infinite.
        OSError: The file cannot be written.
    """
    write_atomically(path, encode_network(path, spec, weights))


def encode_network(path: Path, spec: NetworkSpec, weights: Weights) -> bytes:
    """Return what :func:`save_network` writes; ``path`` is for its errors."""
    spec.check(weights, str(path))
    return _encode(_to_torch({name: weights[name] for name in spec.shapes}))


def save_int8(path: Path, genome: Genome) -> None:
    """Write an int8 network as a plain state dict; equal genomes give equal bytes.

    The matrices are int8 tensors; ``network.0.weight.scale`` holds the scale of each row.

    Raises:
        OSError: The file cannot be written.
    """
    write_atomically(path, encode_int8(genome))


def encode_int8(genome: Genome) -> bytes:
    """Return what :func:`save_int8` writes."""
    tensors = _to_torch(genome.tensors())
    assert all(tensors[name].dtype == torch.int8 for name in genome.spec.matrices)
    assert all(tensors[f"{name}.scale"].dtype == torch.float32 for name in genome.spec.matrices)
    return _encode(tensors)


def _to_torch(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return tensors of their own memory, as torch writes all the memory that one is a view of."""
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}


def _encode(tensors: dict[str, Tensor]) -> bytes:
    content = io.BytesIO()  # torch would write the name of a file into it
    torch.save(tensors, content)
    return content.getvalue()


def _read_safetensors(path: Path, allow_non_finite: bool) -> Checkpoint:
    """Read tensors of any origin, or a genome or weights of ours."""
    try:
        tensors, metadata = read_tensors(path)
        if METADATA_KEY not in metadata:
            return interpret(path, tensors, allow_non_finite)
        if '"what":"genome"' in metadata[METADATA_KEY]:  # canonical JSON, checked by load_genome
            genome = load_genome(path)
            return Checkpoint(genome.spec, genome.to_weights(), genome)
        spec, weights, _ = load_weights(path)
        return Checkpoint(spec, weights)
    except GenomeFileError as error:
        raise TeacherError(str(error)) from error


def _load_torch(path: Path, allow_unsafe: bool) -> tuple[Any, bool]:
    """Return what ``torch.save`` wrote, and whether that took unrestricted unpickling."""
    with path.open("rb") as file:
        magic = file.read(2)
    if magic == b"PK":
        _check_archive(path)
    elif magic != b"\x80\x02":  # the pickle protocol of torch before 1.6
        raise TeacherError(f"{path}: not a file that torch.save wrote, or damaged. {ADVICE}")
    else:
        _check_pickles(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch wonders about is refused, or does no harm
            return torch.load(path, map_location="cpu", weights_only=True), False
    except pickle.UnpicklingError as error:
        if "nsupported" not in str(error):
            raise TeacherError(f"{path}: the file is truncated or damaged") from error
        found = re.search(r"GLOBAL (\S+)", str(error))
        if not allow_unsafe:
            raise TeacherError(
                f"{path}: loading this file would run code from it"
                f"{f' ({found[1]})' if found else ''}. {ADVICE}; "
                "if you trust its author, pass --allow-unsafe-unpickle"
            ) from error
    except LOAD_ERRORS as error:
        raise _damaged(path, error) from error
    if is_pickled_module(path):
        return read_pickled_module(path), True
    try:
        return torch.load(path, map_location="cpu", weights_only=False), True
    except (AttributeError, ImportError) as error:
        raise TeacherError(
            f"{path}: loading this file needs {found[1] if found else 'code'}, which is not here "
            f"({_first_line(error)}). {ADVICE}"
        ) from error
    except LOAD_ERRORS as error:
        raise _damaged(path, error) from error


def _check_archive(path: Path) -> None:
    """Refuse a damaged archive, a TorchScript program, and a zip bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise TeacherError(f"{path}: this is a TorchScript program. {ADVICE}")
        members(path)
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if name.endswith("/data.pkl"):
                    content = archive.read(name)
                    check_pickle(io.BytesIO(content), len(content))
    except ZIP_DAMAGE as error:
        raise _damaged(path, error) from error


def _check_pickles(path: Path) -> None:
    """Refuse a damaged file of torch before 1.6, and one whose pickles are traps."""
    try:
        with path.open("rb") as file:
            for _ in range(OLD_PICKLES):
                check_pickle(file, path.stat().st_size)
    except (ValueError, struct.error, OverflowError, MemoryError) as error:
        raise _damaged(path, error) from error


def _check_numbers(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse tensors that claim to hold more numbers than a file of this size can.

    A tensor may repeat the numbers of a small storage as often as it likes.
    """
    try:
        tensors = [tensor for tensor in state.values() if isinstance(tensor, Tensor)]
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    except RuntimeError as error:  # of a sparse tensor, for one
        raise _damaged(path, error) from error
    if n_bytes > MOST_SHARED * path.stat().st_size:
        raise TeacherError(
            f"{path}: its tensors claim to hold {n_bytes:,} bytes, but the file has "
            f"{path.stat().st_size:,}: it is damaged"
        )


def _damaged(path: Path, error: Exception) -> TeacherError:
    return TeacherError(f"{path}: the file is truncated or damaged ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _state_dict(path: Path, content: Any) -> dict[str, Any]:
    """Return the state dict in what a file holds."""
    if isinstance(content, Mapping) and not _is_state_dict(content):
        inner = next((content[key] for key in STATE_DICT_KEYS if key in content), None)
        if inner is None:
            raise TeacherError(
                f"{path}: expected tensors, or a state dict under one of "
                f"{', '.join(STATE_DICT_KEYS)}; the file has {_listed(content)}"
            )
        content = inner
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not _is_state_dict(content):
        raise TeacherError(f"{path}: expected a state dict, not {type(content).__name__}. {ADVICE}")
    return dict(content)


def _is_state_dict(content: object) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) for name in content)
        and all(isinstance(tensor, Tensor | np.ndarray) for tensor in content.values())
    )


def _listed(content: Mapping[Any, Any]) -> str:
    return ", ".join(sorted(map(str, content))[:10]) or "nothing"
