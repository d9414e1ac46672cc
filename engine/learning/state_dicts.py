"""The network that a state dict holds, float32 or int8, from a file or from memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import TeacherError
from engine.learning.architecture import Arrays, infer_architecture
from populations.errors import GenomeError
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec
from populations.quantization import dequantize

MOST_DIMENSIONS = 32
"""Most dimensions of a tensor that any NumPy can hold; those of a network have one or two."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network as it was found in a file or in memory.

    Attributes:
        spec: Its architecture; an observation is taken to be flat unless the file tells.
        weights: Its float32 tensors under the names of ``spec``, dequantized where it is int8.
        genome: The int8 network that was found, or None for a float one.
        unsafe: Whether reading it needed, and was allowed, more than ``weights_only=True``.
    """

    spec: NetworkSpec
    weights: Arrays
    genome: Genome | None = None
    unsafe: bool = False


def interpret(
    source: Path | str,
    tensors: Mapping[str, Tensor | NDArray[Any]],
    allow_non_finite: bool = False,
) -> Checkpoint:
    """Return the network of a state dict.

    Args:
        source: Where it comes from, for messages.
        tensors: Tensors by name; int8 ones with their scales beside them, as
            :meth:`Genome.tensors` names them.
        allow_non_finite: Whether NaN and infinity are let through; an int8 network that holds
            them is returned dequantized only, without a genome.

    Returns:
        The network; the lineage of a genome, which a state dict lacks, says that it is a student
        whose order of hidden units is its own.

    Raises:
        TeacherError: The tensors are not those of a multi-layer perceptron.
    """
    arrays = {name: _to_numpy(source, name, tensor) for name, tensor in tensors.items()}
    int8 = [name for name in arrays if arrays[name].dtype == np.int8 and f"{name}.scale" in arrays]
    scales = {name: _scale(source, name, arrays.pop(f"{name}.scale"), arrays) for name in int8}
    floats: Arrays = {}
    for name, array in arrays.items():
        if name in scales:
            with np.errstate(over="ignore"):  # an overflow becomes infinity and is seen as that
                floats[name] = dequantize(array, scales[name])
        else:
            floats[name] = _to_float32(source, name, array)
    spec, weights, origins = infer_architecture(source, floats, allow_non_finite)
    is_finite = all(np.isfinite(tensor).all() for tensor in weights.values())
    if {origins[name] for name in spec.matrices} != set(scales) or not is_finite:
        return Checkpoint(spec, weights)
    is_half = all(arrays[origins[name]].dtype == np.float16 for name in spec.vectors)
    vectors = {name: weights[name] for name in spec.vectors}
    try:
        genome = Genome(
            spec,
            {name: arrays[origins[name]] for name in spec.matrices},
            {name: scales[origins[name]] for name in spec.matrices},
            {name: vectors[name].astype(np.float16) for name in vectors} if is_half else vectors,
        )
    except GenomeError as error:
        raise TeacherError(f"{source}: {error}") from error
    return Checkpoint(spec, weights, genome.with_lineage(Lineage("student", 0, 0, basis=genome.id)))


def _scale(
    source: Path | str, name: str, scale: NDArray[Any], arrays: Mapping[str, NDArray[Any]]
) -> NDArray[np.float32]:
    """Return the scales of the rows of an int8 matrix."""
    if arrays[name].ndim != 2:
        raise TeacherError(
            f"{source}: {name} is int8 and must be a matrix, not of shape {arrays[name].shape}"
        )
    expected = arrays[name].shape[:1]
    if scale.shape != expected:
        raise TeacherError(
            f"{source}: {name}.scale must have shape {expected}, one number per row, "
            f"not {scale.shape}"
        )
    return _to_float32(source, f"{name}.scale", scale)


def _to_numpy(source: Path | str, name: str, tensor: Tensor | NDArray[Any]) -> NDArray[Any]:
    """Return a tensor as a NumPy array, bfloat16 and float64 as float32."""
    if isinstance(tensor, np.ndarray):
        return tensor
    is_known = tensor.is_floating_point() or tensor.dtype == torch.int8
    if not is_known or tensor.layout != torch.strided or tensor.is_meta:
        raise TeacherError(
            f"{source}: {name} must be a dense floating-point tensor, not {tensor.dtype}"
        )
    if tensor.ndim > MOST_DIMENSIONS:
        raise TeacherError(f"{source}: {name} must have one or two dimensions, not {tensor.ndim}")
    keeps = tensor.dtype in (torch.int8, torch.float16)
    try:
        kept = tensor.detach().cpu() if keeps else tensor.detach().cpu().to(torch.float32)
        return np.array(kept.numpy())
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise TeacherError(f"{source}: {name} cannot be read as a tensor ({reason})") from error


def _to_float32(source: Path | str, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """Return floating-point numbers as float32; one too large for it becomes infinite."""
    if array.dtype.kind != "f":
        raise TeacherError(f"{source}: {name} must be floating point, not {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
