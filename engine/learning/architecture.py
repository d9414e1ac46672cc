"""The architecture of a network of which only names and shapes of the tensors are known.

A state dict does not tell activations: a network is taken to be Linear, optional LayerNorm, ReLU,
optional Dropout, repeated, which is what the gaps in its numbering must agree with. A network with
tanh has the same tensors and cannot be told apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import TeacherError
from populations.errors import GenomeError
from populations.network import NetworkSpec, Norm

NAME = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<index>[0-9]{1,4})\.(?P<kind>weight|bias)")

Arrays = dict[str, NDArray[np.float32]]


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


def infer_architecture(
    source: Path | str, tensors: Arrays, allow_non_finite: bool = False
) -> tuple[NetworkSpec, Arrays, dict[str, str]]:
    """Infer the architecture, and give the tensors its names.

    Args:
        source: Where the tensors come from, for messages.
        tensors: Float32 arrays by the names of one numbered Sequential, whatever its prefix.
        allow_non_finite: Whether NaN and infinity are let through.

    Returns:
        The architecture, the tensors under its names, and the name in the file of each of them.

    Raises:
        TeacherError: The tensors are not those of a multi-layer perceptron.
    """
    modules = _modules(source, tensors)
    linears = [module for module in modules if module.is_linear]
    norms = {module.index: module for module in modules if not module.is_linear}
    if not linears:
        raise TeacherError(f"{source}: expected Linear layers, but no weight is a matrix")
    norm: Norm = "layer" if norms else "none"
    has_dropout = _has_dropout(source, linears, norms)
    try:
        spec = NetworkSpec(
            observation_shape=(linears[0].tensors["weight"].shape[1],),
            hidden=tuple(len(linear.tensors["weight"]) for linear in linears[:-1]),
            n_actions=len(linears[-1].tensors["weight"]),
            norm=norm,
            dropout_slots=has_dropout,
        )
    except GenomeError as error:
        raise TeacherError(f"{source}: {error}") from error
    found = {
        f"{module.name}.{kind}": module.tensors[kind]
        for module in modules
        for kind in ("weight", "bias")
    }
    weights: Arrays = {}
    origins: dict[str, str] = {}
    for (original, tensor), (name, shape) in zip(found.items(), spec.shapes.items(), strict=True):
        if tensor.shape != shape:
            raise TeacherError(
                f"{source}: {original} must have shape {shape} to fit the layers around it, "
                f"not {tensor.shape}"
            )
        if not allow_non_finite and not np.isfinite(tensor).all():
            raise TeacherError(f"{source}: {original} holds NaN or infinity, or exceeds float32")
        weights[name] = tensor
        origins[name] = original
    return spec, weights, origins


def _modules(source: Path | str, tensors: Arrays) -> list[_Module]:
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
                f"{source}: {name} is not the weight or bias of a numbered layer such as "
                "network.0.weight; only multi-layer perceptrons can be teachers"
            )
        if tensor.ndim not in ((1, 2) if match["kind"] == "weight" else (1,)):
            raise TeacherError(
                f"{source}: {name} has shape {tensor.shape}, but only Linear layers and LayerNorm "
                "can be read, with weights of one or two dimensions and biases of one"
            )
        modules = by_prefix.setdefault(match["prefix"], {})
        modules.setdefault(int(match["index"]), {})[match["kind"]] = tensor
    if len(by_prefix) != 1:
        raise TeacherError(
            f"{source}: expected the layers of one network, not {len(by_prefix)}"
            + (f": {', '.join(sorted(by_prefix))}" if by_prefix else "")
        )
    prefix, modules = by_prefix.popitem()
    for index, parts in modules.items():
        for kind in ("weight", "bias"):
            if kind not in parts:
                raise TeacherError(f"{source}: expected {prefix}{index}.{kind}, but it is missing")
    return [_Module(index, f"{prefix}{index}", modules[index]) for index in sorted(modules)]


def _has_dropout(source: Path | str, linears: list[_Module], norms: Mapping[int, _Module]) -> bool:
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
            f"{source}: expected Linear, LayerNorm or none, ReLU, Dropout or none, repeated, and a "
            f"Linear at the end; but Linear layers are numbered "
            f"{[linear.index for linear in linears]} and normalizations {sorted(norms)}"
        )
    return strides == {shortest + 1}
