"""Reading Q-networks that were trained elsewhere; the only reader of ``.pt`` files.

A state dict tells names and shapes, not activations: a network is taken to be Linear, optional
LayerNorm, ReLU, optional Dropout, repeated, which is what the gaps in its numbering must agree
with. A network with tanh has the same file and cannot be told apart.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import TeacherError
from populations.errors import GenomeError, GenomeFileError
from populations.network import NetworkSpec, Norm
from populations.storage import load_weights, read_tensors
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

NAME = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<index>[0-9]{1,4})\.(?P<kind>weight|bias)")
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
)

Arrays = dict[str, NDArray[np.float32]]


def load_network(path: Path, allow_unsafe: bool = False) -> tuple[NetworkSpec, Arrays]:
    """Read a Q-network from a file of ours, or from one that torch or safetensors wrote.

    Args:
        path: A ``.safetensors``, ``.pt`` or ``.pth`` file.
        allow_unsafe: Unpickle a torch file without restrictions, which runs whatever code is in
            it. Without this a file that needs code is refused.

    Returns:
        The architecture, and float32 tensors under its names. An observation is taken to be flat
        unless the file is one of ours.

    Raises:
        TeacherError: The file is missing, damaged, unsafe, or holds something else.
    """
    if not path.is_file():
        raise TeacherError(f"{path}: expected the file of a trained Q-network, but there is none")
    if path.suffix == ".safetensors":
        try:
            tensors, metadata = read_tensors(path)
            if METADATA_KEY in metadata:
                spec, weights, _ = load_weights(path)
                return spec, weights
        except GenomeFileError as error:
            raise TeacherError(str(error)) from error
    elif path.suffix in TORCH_SUFFIXES:
        tensors = _state_dict(path, _load_torch(path, allow_unsafe))
    else:
        raise TeacherError(
            f"{path}: expected a .safetensors, .pt or .pth file, not {path.suffix or 'no suffix'}"
        )
    return _interpret(path, {name: _to_float32(path, name, t) for name, t in tensors.items()})


def _load_torch(path: Path, allow_unsafe: bool) -> Any:
    """Return what ``torch.save`` wrote."""
    with path.open("rb") as file:
        magic = file.read(2)
    if magic == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise TeacherError(f"{path}: the file is truncated or damaged ({error})") from error
        if any(name.endswith("/constants.pkl") for name in names):
            raise TeacherError(f"{path}: this is a TorchScript program. {ADVICE}")
    elif magic != b"\x80\x02":  # the pickle protocol of torch before 1.6
        raise TeacherError(f"{path}: not a file that torch.save wrote, or damaged. {ADVICE}")
    try:
        return torch.load(path, map_location="cpu", weights_only=not allow_unsafe)
    except pickle.UnpicklingError as error:
        if allow_unsafe or "nsupported" not in str(error):
            raise TeacherError(f"{path}: the file is truncated or damaged") from error
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise TeacherError(
            f"{path}: loading this file would run code from it"
            f"{f' ({found[1]})' if found else ''}. {ADVICE}; "
            "if you trust its author, pass --allow-unsafe-unpickle"
        ) from error
    except LOAD_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TeacherError(f"{path}: the file is truncated or damaged ({reason})") from error


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
        and all(isinstance(tensor, Tensor) for tensor in content.values())
    )


def _to_float32(path: Path, name: str, tensor: Tensor | NDArray[Any]) -> NDArray[np.float32]:
    """Return a floating-point tensor as float32; a number too large for it becomes infinite."""
    if isinstance(tensor, Tensor):
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise TeacherError(
                f"{path}: {name} must be a dense floating-point tensor, not {tensor.dtype}"
            )
        return np.array(tensor.detach().to(torch.float32).numpy())
    if tensor.dtype.kind != "f":
        raise TeacherError(f"{path}: {name} must be floating point, not {tensor.dtype}")
    with np.errstate(over="ignore"):
        return tensor.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Module:
    """One numbered module of a Sequential: its tensors by ``weight`` and ``bias``."""

    index: int
    name: str
    tensors: Arrays

    @property
    def is_linear(self) -> bool:
        """Whether it is a Linear; otherwise it is a LayerNorm."""
        return self.tensors["weight"].ndim == 2


def _interpret(path: Path, tensors: Arrays) -> tuple[NetworkSpec, Arrays]:
    """Infer the architecture, and give the tensors its names."""
    modules = _modules(path, tensors)
    linears = [module for module in modules if module.is_linear]
    norms = {module.index: module for module in modules if not module.is_linear}
    if not linears:
        raise TeacherError(f"{path}: expected Linear layers, but no weight is a matrix")
    norm: Norm = "layer" if norms else "none"
    has_dropout = _has_dropout(path, linears, norms)
    try:
        spec = NetworkSpec(
            observation_shape=(linears[0].tensors["weight"].shape[1],),
            hidden=tuple(len(linear.tensors["weight"]) for linear in linears[:-1]),
            n_actions=len(linears[-1].tensors["weight"]),
            norm=norm,
            dropout_slots=has_dropout,
        )
    except GenomeError as error:
        raise TeacherError(f"{path}: {error}") from error
    found = {
        f"{module.name}.{kind}": module.tensors[kind]
        for module in modules
        for kind in ("weight", "bias")
    }
    weights: Arrays = {}
    for (original, tensor), (name, shape) in zip(found.items(), spec.shapes.items(), strict=True):
        if tensor.shape != shape:
            raise TeacherError(
                f"{path}: {original} must have shape {shape} to fit the layers around it, "
                f"not {tensor.shape}"
            )
        if not np.isfinite(tensor).all():
            raise TeacherError(f"{path}: {original} holds NaN or infinity, or exceeds float32")
        weights[name] = tensor
    return spec, weights


def _modules(path: Path, tensors: Arrays) -> list[_Module]:
    """Return the modules of the one Sequential in a file, in its order.

    The copies that training keeps as target networks are left out.
    """
    by_prefix: dict[str, dict[int, Arrays]] = {}
    for name, tensor in tensors.items():
        if "target" in name:
            continue
        match = NAME.fullmatch(name)
        if match is None:
            raise TeacherError(
                f"{path}: {name} is not the weight or bias of a numbered layer such as "
                "network.0.weight; only multi-layer perceptrons can be teachers"
            )
        if tensor.ndim not in ((1, 2) if match["kind"] == "weight" else (1,)):
            raise TeacherError(
                f"{path}: {name} has shape {tensor.shape}, but only Linear layers and LayerNorm "
                "can be read, with weights of one or two dimensions and biases of one"
            )
        modules = by_prefix.setdefault(match["prefix"], {})
        modules.setdefault(int(match["index"]), {})[match["kind"]] = tensor
    if len(by_prefix) != 1:
        raise TeacherError(
            f"{path}: expected the layers of one network, not {len(by_prefix)}"
            + (f": {', '.join(sorted(by_prefix))}" if by_prefix else "")
        )
    prefix, modules = by_prefix.popitem()
    for index, parts in modules.items():
        for kind in ("weight", "bias"):
            if kind not in parts:
                raise TeacherError(f"{path}: expected {prefix}{index}.{kind}, but it is missing")
    return [_Module(index, f"{prefix}{index}", modules[index]) for index in sorted(modules)]


def _has_dropout(path: Path, linears: list[_Module], norms: Mapping[int, _Module]) -> bool:
    """Tell from the gaps in the numbering whether a Dropout follows each ReLU.

    Raises:
        TeacherError: The numbering is not that of Linear, LayerNorm or nothing, ReLU, and Dropout
            or nothing.
    """
    hidden = linears[:-1]
    expected = {linear.index + 1 for linear in hidden} if norms else set()
    strides = {
        following.index - linear.index
        for linear, following in zip(hidden, linears[1:], strict=True)
    }
    shortest = 3 if norms else 2  # Linear, LayerNorm if any, ReLU
    if set(norms) != expected or not (strides <= {shortest} or strides <= {shortest + 1}):
        raise TeacherError(
            f"{path}: expected Linear, LayerNorm or none, ReLU, Dropout or none, repeated, and a "
            f"Linear at the end; but Linear layers are numbered "
            f"{[linear.index for linear in linears]} and normalizations {sorted(norms)}"
        )
    return strides == {shortest + 1}


def _listed(content: Mapping[Any, Any]) -> str:
    return ", ".join(sorted(map(str, content))[:10]) or "nothing"
