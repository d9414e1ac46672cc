"""Weights out of the whole modules that AgentFarm pickled: its int8 files and its float ones.

AgentFarm saves a quantized network with ``torch.save(model)``: a pickle of objects whose classes
lie in its own package and in ``torch.ao``, which torch is about to drop. Neither is needed here:
the pickle is read with stand-ins that only keep what they are given, so that no class of it is
imported and none of its code runs. Every other name that it asks for is refused.

What comes out are float weights. Files of its dynamic and static quantization hold int8 codes with
a scale per tensor or per row, which are multiplied out; the ranges of activations that static
quantization adds are dropped. What AgentFarm calls an int8 export of quantization-aware training
holds float weights, which are read as they are.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import TeacherError
from engine.learning.archives import ZIP_DAMAGE, members
from engine.learning.pickles import check_pickle

PICKLE_FILE = "/data.pkl"
# How a pickle begins the name of a class; torch.nn.quantized is what torch.ao.nn once was.
MARKS = (b"cfarm.", b"ctorch.ao.nn.", b"ctorch.nn.quantized.")
MODULES = ("farm.core.decision.", "torch.nn.modules.", "torch.ao.nn.", "torch.nn.quantized.")
CLASSES = (
    "BaseQNetwork",
    "StudentQNetwork",
    "WeightOnlyFakeQuantLinear",
    "_QuantWrapper",
    "Sequential",
    "Linear",
    "LayerNorm",
    "ReLU",
    "Dropout",
    "LinearPackedParams",
    "Quantize",
    "DeQuantize",
)
"""Classes of these modules that have a stand-in."""
CONSTANTS = ("qint8", "quint8", "per_tensor_affine", "per_channel_affine")
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "QInt8Storage": "i1",
    "QUInt8Storage": "u1",
}
# What a damaged pickle, and walking through what it holds, can raise.
DAMAGE = (*ZIP_DAMAGE, AttributeError, LookupError, TypeError, pickle.UnpicklingError)
MOST_MODULES = 10_000
"""Modules in a network; one that holds another twice, and so on, seems to have billions."""
MOST_DIMENSIONS, LONGEST_NAME = 8, 1000

Array = NDArray[Any]


def is_pickled_module(path: Path) -> bool:
    """Tell whether a file that needs unpickling is one for :func:`read_pickled_module`.

    Raises:
        TeacherError: The file is damaged.
    """
    try:
        if not zipfile.is_zipfile(path):  # torch before 1.6, older than AgentFarm
            return False
        members(path)
        with zipfile.ZipFile(path) as archive:
            content = archive.read(_pickle_file(archive))
    except DAMAGE as error:
        raise _damaged(path, error) from error
    return any(mark in content for mark in MARKS)


def read_pickled_module(path: Path) -> dict[str, Array]:
    """Return the weights and biases of a pickled network, dequantized.

    Args:
        path: A file that ``torch.save(model)`` wrote.

    Returns:
        Floating-point arrays by name, such as ``network.0.weight`` of shape ``(out, in)``.

    Raises:
        TeacherError: The file is damaged, or holds anything else than such a network.
    """
    try:
        members(path)
        with zipfile.ZipFile(path) as archive:
            name = _pickle_file(archive)
            folder = name.removesuffix(PICKLE_FILE)
            content = archive.read(name)
            check_pickle(io.BytesIO(content), len(content))
            module = _Unpickler(path, archive, folder, content).load()
        if not isinstance(module, _StandIn):
            raise TeacherError(f"{path}: expected a pickled network, not {type(module).__name__}")
        return _tensors(module)
    except DAMAGE as error:
        raise _damaged(path, error) from error


def _pickle_file(archive: zipfile.ZipFile) -> str:
    for name in archive.namelist():
        if name.endswith(PICKLE_FILE):
            return name
    raise ValueError(f"it holds no {PICKLE_FILE[1:]}")


def _damaged(path: Path, error: Exception) -> TeacherError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return TeacherError(f"{path}: the file is truncated or damaged ({reason})")


class _StandIn:
    """An object whose class is not imported; it keeps the state that it is given."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads a pickle in which every name is a stand-in, or refused."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._path = path
        self._archive = archive
        self._folder = folder
        self._storages: dict[tuple[str, str], Array] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands in for a class, a function or a constant."""
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in CONSTANTS:
            return name
        if (module, name) in FUNCTIONS:
            return FUNCTIONS[module, name]
        is_known = module.startswith(MODULES) and name in CLASSES
        if is_known or (module, name) == ("torch", "ScriptObject"):
            return _StandIn
        raise TeacherError(
            f"{self._path}: expected a network that AgentFarm pickled, made of its own classes, "
            f"Linear, LayerNorm, ReLU and Dropout; but the file asks for {module}.{name}"
        )

    def persistent_load(self, pid: Any) -> Array:
        """Return the numbers of one storage."""
        _, dtype, key, _, n_numbers = pid
        name = f"{self._folder}/data/{key}"
        if (name, dtype) not in self._storages:  # a pickle may ask for it a million times
            self._storages[name, dtype] = np.frombuffer(self._archive.read(name), dtype)
        numbers = self._storages[name, dtype]
        if len(numbers) < n_numbers:
            raise ValueError(f"{name} is too short")
        return numbers


def _tensor(storage: Array, offset: int, size: Sequence[int], stride: Any, *_: Any) -> Array:
    """Return a contiguous tensor of a storage, as :func:`torch._utils._rebuild_tensor_v2` does."""
    if len(size) > MOST_DIMENSIONS:
        raise ValueError(f"a tensor has {len(size)} dimensions")
    steps = [math.prod(size[axis + 1 :]) for axis in range(len(size))]
    if any(n > 1 and step != found for n, step, found in zip(size, steps, stride, strict=True)):
        raise ValueError(f"a tensor of shape {tuple(size)} has the strides {tuple(stride)}")
    return storage[offset : offset + math.prod(size)].reshape(size)


def _dequantized(
    storage: Array, offset: int, size: Sequence[int], stride: Any, quantizer: Any, *_: Any
) -> Array:
    """Return ``(code - zero_point) * scale`` as float32, with one scale or one per row."""
    codes = _tensor(storage, offset, size, stride).astype(np.float32)
    scheme, scale, zero_point = quantizer[:3]
    if scheme == "per_channel_affine":
        # Of no other length, or the numbers would multiply to a matrix of any size.
        shape = [n if axis == quantizer[3] else 1 for axis, n in enumerate(size)]
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    elif not isinstance(scale, float) or not isinstance(zero_point, int):
        raise TypeError(f"expected one scale and zero point, not {type(scale).__name__}")
    values: Array = (codes - np.float32(zero_point)) * np.float32(scale)
    return values


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _sealed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as an object that takes no state, as a pickle can set that of all else."""

    class Sealed:
        __slots__ = ()

        def __call__(self, *arguments: Any) -> Any:
            return function(*arguments)

    return Sealed()


FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _sealed(_tensor),
    ("torch._utils", "_rebuild_qtensor"): _sealed(_dequantized),
    ("torch._utils", "_rebuild_parameter"): _sealed(_parameter),
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
}


def _tensors(root: _StandIn) -> dict[str, Array]:
    """Return the parameters of a module by name; a quantized Linear keeps its own packed."""
    found: dict[str, Array] = {}
    waiting = [(root, "")]
    n_modules = 0
    while waiting:
        module, prefix = waiting.pop()
        n_modules += 1
        if n_modules > MOST_MODULES or len(prefix) > LONGEST_NAME:
            raise ValueError(f"expected at most {MOST_MODULES:,} modules in one another")
        for name, tensor in module.state["_parameters"].items():
            if tensor is not None:
                found[f"{prefix}{name}"] = _array(tensor)
        for name, child in module.state["_modules"].items():
            if name == "_packed_params":
                # torch keeps the name of the C++ class beside its state
                (weight, bias), _ = child.state["_packed_params"].state
                found[f"{prefix}weight"] = _array(weight)
                if bias is not None:
                    found[f"{prefix}bias"] = _array(bias)
            else:
                waiting.append((child, f"{prefix}{name}."))
    return found


def _array(tensor: object) -> Array:
    if not isinstance(tensor, np.ndarray):
        raise TypeError(f"expected a tensor, not {type(tensor).__name__}")
    return tensor
