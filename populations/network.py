"""The architecture of a Q-network: its tensors, its blocks, its hidden units.

Whoever needs to know which tensors form a layer, or which rows and columns belong to one hidden
unit, asks here, so that a new kind of layer is added in one place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from populations.errors import GenomeShapeError, GenomeValueError

Weights = Mapping[str, NDArray[np.float32]]
"""Float32 tensors by name; ``network.0.weight`` has shape ``(out, in)``."""

Norm = Literal["none", "layer"]

MOST_SIZES, LARGEST_SIZE = 1000, 2**63
"""Most layers, and numbers in one, that the description of a network may claim to have."""
LAYER_NORM_EPSILON = 1e-5
"""What LayerNorm adds to the variance; torch's default."""


@dataclass(frozen=True, slots=True)
class Block:
    """One Linear layer with the normalization that follows it.

    Attributes:
        linear: Name of the Linear module, for example ``network.0``.
        norm: Name of the LayerNorm module behind it, or None.
        n_in: Inputs of the layer.
        n_out: Outputs of the layer.
    """

    linear: str
    norm: str | None
    n_in: int
    n_out: int

    @property
    def weight(self) -> str:
        """Name of the weight, shape ``(n_out, n_in)``."""
        return f"{self.linear}.weight"

    @property
    def bias(self) -> str:
        """Name of the bias, shape ``(n_out,)``."""
        return f"{self.linear}.bias"

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors of the block, in the order of the file."""
        norm = () if self.norm is None else (f"{self.norm}.weight", f"{self.norm}.bias")
        return (self.weight, self.bias, *norm)


@dataclass(frozen=True, slots=True)
class UnitLayer:
    """The hidden units of one layer and where each of them lives.

    Attributes:
        n_units: Number of units.
        incoming: ``(tensor, axis)`` pairs whose index along ``axis`` is the unit: its weight row,
            its bias, its normalization.
        outgoing: ``(tensor, axis)`` pairs that read the unit: columns of the next weight.
    """

    n_units: int
    incoming: tuple[tuple[str, int], ...]
    outgoing: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class NetworkSpec:
    """A multi-layer perceptron: Linear, optional LayerNorm, ReLU, repeated; then Linear.

    Tensor names are those of ``torch.nn.Sequential``. With ``dropout_slots`` a Dropout module is
    counted behind every ReLU, which is how AgentFarm's ``BaseQNetwork`` numbers its layers
    (0, 1, 4, 5, 8); dropout itself is a matter of training and is not kept.

    Attributes:
        observation_shape: Shape of one observation; it is flattened before the first layer.
        hidden: Width of each hidden layer; empty for a linear Q-function.
        n_actions: Number of discrete actions, the outputs.
        norm: ``layer`` for a LayerNorm behind each hidden Linear, or ``none``.
        dropout_slots: Whether the numbering of the modules leaves room for Dropout.

    Raises:
        GenomeShapeError: A size is below one.
    """

    observation_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    n_actions: int
    norm: Norm = "none"
    dropout_slots: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        sizes = (*self.observation_shape, *self.hidden, self.n_actions)
        if not self.observation_shape or any(size < 1 for size in sizes):
            raise GenomeShapeError(f"every size of a network must be at least 1, not {sizes}")
        if self.norm not in ("none", "layer"):
            raise GenomeShapeError(f"norm must be 'none' or 'layer', not {self.norm!r}")

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the first layer."""
        return math.prod(self.observation_shape)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The layers from input to output, each with its normalization."""
        stride = 2 + (self.norm == "layer") + self.dropout_slots
        widths = (self.n_inputs, *self.hidden)
        hidden = [
            Block(
                linear=f"network.{i * stride}",
                norm=f"network.{i * stride + 1}" if self.norm == "layer" else None,
                n_in=widths[i],
                n_out=width,
            )
            for i, width in enumerate(self.hidden)
        ]
        output = Block(f"network.{len(self.hidden) * stride}", None, widths[-1], self.n_actions)
        return (*hidden, output)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor by name, in the order of the file; read-only, for all to share."""
        return MappingProxyType(
            {
                name: (block.n_out, block.n_in) if name == block.weight else (block.n_out,)
                for block in self.blocks
                for name in block.tensors
            }
        )

    @cached_property
    def matrices(self) -> tuple[str, ...]:
        """Names of the tensors that are quantized: the weights of the Linear layers."""
        return tuple(block.weight for block in self.blocks)

    @cached_property
    def vectors(self) -> tuple[str, ...]:
        """Names of the tensors that stay floating point: biases and normalizations."""
        matrices = set(self.matrices)
        return tuple(name for name in self.shapes if name not in matrices)

    @cached_property
    def units(self) -> tuple[UnitLayer, ...]:
        """The hidden layers, first to last, as sets of units."""
        layers = []
        for block, following in zip(self.blocks[:-1], self.blocks[1:], strict=True):
            incoming = tuple((name, 0) for name in block.tensors)
            layers.append(UnitLayer(block.n_out, incoming, ((following.weight, 1),)))
        return tuple(layers)

    @cached_property
    def n_parameters(self) -> int:
        """Number of weights, biases and normalization parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def check(self, weights: Weights, owner: str) -> None:
        """Raise unless ``weights`` are the finite float32 tensors of this spec.

        Args:
            weights: Tensors by name.
            owner: Whose weights these are, for the message: a file or a genome id.

        Raises:
            GenomeShapeError: This is no mapping, or a tensor is missing, unexpected, no array, or
                of another shape or dtype.
            GenomeValueError: A tensor holds NaN or infinity.
        """
        given: Any = weights
        if not isinstance(given, Mapping):
            raise GenomeShapeError(
                f"{owner}: expected tensors by name, not a {type(given).__name__}"
            )
        missing = [name for name in self.shapes if name not in weights]
        extra = [name for name in weights if name not in self.shapes]
        if missing or extra:
            raise GenomeShapeError(
                f"{owner}: expected the tensors {', '.join(self.shapes)}; "
                f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(extra) or 'none'}"
            )
        for name, shape in self.shapes.items():
            tensor: Any = weights[name]
            if not isinstance(tensor, np.ndarray):
                raise GenomeShapeError(
                    f"{owner}: {name} must be a NumPy array, not a {type(tensor).__name__}"
                )
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise GenomeShapeError(
                    f"{owner}: {name} must be float32 of shape {shape}, "
                    f"not {tensor.dtype} of shape {tensor.shape}"
                )
        # All numbers at once: one by one the few tensors of a child take twice as long.
        if not np.isfinite(np.concatenate([weights[name].ravel() for name in self.shapes])).all():
            name = next(name for name in self.shapes if not np.isfinite(weights[name]).all())
            raise GenomeValueError(f"{owner}: {name} holds NaN or infinity")

    def __reduce__(self) -> tuple[type[NetworkSpec], tuple[Any, ...]]:
        """Pickle the fields alone: what is derived from them is cheap, and partly not picklable."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return {
            "observation_shape": list(self.observation_shape),
            "hidden": list(self.hidden),
            "n_actions": self.n_actions,
            "norm": self.norm,
            "dropout_slots": self.dropout_slots,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkSpec:
        """Rebuild a spec from :meth:`to_dict`.

        Raises:
            GenomeShapeError: A field is missing or of the wrong type.
        """
        try:
            return cls(
                observation_shape=_sizes(values["observation_shape"]),
                hidden=_sizes(values["hidden"]),
                n_actions=_sizes([values["n_actions"]])[0],
                norm=values["norm"],
                dropout_slots=bool(values["dropout_slots"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GenomeShapeError(f"not the description of a network: {error!r}") from error


def _sizes(values: Any) -> tuple[int, ...]:
    """Return ``values`` as a tuple of whole numbers; booleans and floats are refused."""
    if not isinstance(values, list | tuple) or any(type(value) is not int for value in values):
        raise TypeError(f"expected a list of whole numbers, not {values!r:.80}")
    if len(values) > MOST_SIZES or any(value > LARGEST_SIZE for value in values):
        raise ValueError(
            f"expected at most {MOST_SIZES} whole numbers up to {LARGEST_SIZE}, not {values!r:.80}"
        )
    return tuple(values)
