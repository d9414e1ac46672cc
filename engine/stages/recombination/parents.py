"""Parents of a child in whatever form somebody has them: modules, files, state dicts, genomes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import StageError, TeacherError
from engine.learning.checkpoints import load_network
from engine.learning.state_dicts import interpret
from engine.stages.networks import Network
from populations.genome import Genome
from populations.network import LAYER_NORM_EPSILON

StateDict = Mapping[str, Tensor] | Mapping[str, NDArray[Any]]
Parent = nn.Module | str | Path | StateDict | Genome | Network

QUANTIZED_PACKAGES = ("torch.ao.", "torch.nn.quantized", "torchao.")
KNOWN_LEAVES = (nn.Linear, nn.LayerNorm, nn.ReLU, nn.Dropout, nn.Flatten, nn.Identity)


def read_parent(parent: Parent, name: str, allow_unsafe: bool = False) -> tuple[str, Network]:
    """Return a parent as a float32 network.

    Args:
        parent: One of

            - a live module: Linear, LayerNorm or none, ReLU, Dropout or none, repeated, in a
              Sequential, which may be an attribute of it, as in AgentFarm's ``BaseQNetwork``;
            - the path of a ``.pt`` or ``.safetensors`` file, float or int8;
            - a state dict of torch tensors or NumPy arrays, with any prefix or none, float, or
              int8 codes with their ``<name>.scale``;
            - a :class:`Genome`, or a :class:`Network`.
        name: What to call it in errors, such as ``parent A``.
        allow_unsafe: Let a ``.pt`` file run its code while it is loaded.

    Returns:
        Its name with where it comes from, and the network. NaN and infinity are let through.

    Raises:
        StageError: It is of none of these kinds, is quantized by torch, or is not such a network.
    """
    try:
        match parent:
            case Network():
                return name, parent
            case Genome():
                called = f"{name} (genome {parent.id})"
                return called, Network(parent.spec, parent.to_weights())
            case nn.Module():
                called = f"{name} ({type(parent).__name__})"
                return called, _interpreted(called, _module_tensors(parent, called))
            case str() | Path():
                called = f"{name} ({parent})"
                loaded = load_network(Path(parent), allow_unsafe, allow_non_finite=True)
                return called, Network(*loaded)
            case Mapping():
                called = f"{name} (a state dict)"
                return called, _interpreted(called, parent)
    except TeacherError as error:
        raise StageError(str(error)) from error
    raise StageError(
        f"{name} must be a module, the path of a file, a state dict, a Genome or a Network, "
        f"not {type(parent).__name__}"
    )


def _interpreted(name: str, tensors: Mapping[Any, Any]) -> Network:
    """Return the network of a state dict, which may hold anything yet."""
    for path, tensor in tensors.items():
        if not isinstance(path, str) or not isinstance(tensor, Tensor | np.ndarray):
            raise StageError(
                f"{name}: expected torch tensors or NumPy arrays by name, but {path!r} is "
                f"{type(tensor).__name__}"
            )
    found = interpret(name, tensors, allow_non_finite=True)
    return Network(found.spec, found.weights)


def _module_tensors(module: nn.Module, name: str) -> dict[str, Tensor]:
    """Return the tensors of a live module, once it is known to compute what they say.

    A file shows tensors only, but a live module shows its activations and normalizations too.
    """
    for path, part in module.named_modules():
        where = f"{path or 'it'} is {type(part).__module__}.{type(part).__qualname__}"
        if type(part).__module__.startswith(QUANTIZED_PACKAGES):
            raise _quantized(name, where)
        if any(True for _ in part.children()):
            continue
        if not isinstance(part, KNOWN_LEAVES):
            raise StageError(
                f"{name}: {where}, but only networks of Linear, LayerNorm, ReLU and Dropout "
                "can be crossed"
            )
        if isinstance(part, nn.LayerNorm) and not (
            part.elementwise_affine and part.eps == LAYER_NORM_EPSILON
        ):
            raise StageError(
                f"{name}: the LayerNorm {path} must have a weight and a bias, and an eps of "
                f"{LAYER_NORM_EPSILON:g}"
            )
    tensors: dict[str, Tensor] = {}
    for path, tensor in module.state_dict().items():
        # Libraries hide packed int8 behind a subclass that claims to be float32.
        if not isinstance(tensor, Tensor) or tensor.is_quantized or type(tensor) is not Tensor:
            raise _quantized(name, f"{path} is {type(tensor).__name__}")
        tensors[path] = tensor.detach().cpu()
    return tensors


def _quantized(name: str, where: str) -> StageError:
    return StageError(
        f"{name} has quantized layers ({where}), which cannot be crossed as a live module; pass "
        "the float module that it was made from, or an int8 file that 'cultivar quantize' wrote"
    )
