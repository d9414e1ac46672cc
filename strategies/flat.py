"""A network as one vector: all of its numbers, tensor after tensor, in the order of the file.

A small network has many tensors and few numbers, so that a formula which treats them alike takes
most of its time per tensor. As one vector it is computed once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights

Vector = NDArray[np.float64]
"""All numbers of a network, ``(n_parameters,)``."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each number of a network belongs; arrays of shape ``(n_parameters,)``.

    Attributes:
        unit: Number of its unit or action, from 0, through all layers: a weight and a bias belong
            to the one that reads, a normalization to the one that it scales.
        row: That number plus 1, of the weights and biases; 0 for a LayerNorm.
        layer: Number of its Linear, from 1; 0 for a LayerNorm.
    """

    unit: NDArray[np.intp]
    row: NDArray[np.intp]
    layer: NDArray[np.intp]


@lru_cache(maxsize=16)  # a run has one architecture, or a few
def layout_of(spec: NetworkSpec) -> Layout:
    """Return where each number of such a network belongs; read-only."""
    units, layers, first_unit = [], [], 0
    for index, block in enumerate(spec.blocks):
        own = np.arange(first_unit, first_unit + block.n_out)
        first_unit += block.n_out
        for name in block.tensors:
            size = math.prod(spec.shapes[name])
            units.append(np.repeat(own, size // block.n_out))
            layers.append(np.full(size, index + 1 if name in (block.weight, block.bias) else 0))
    unit, layer = np.concatenate(units), np.concatenate(layers)
    row = np.where(layer > 0, unit + 1, 0)
    for array in (unit, row, layer):
        array.flags.writeable = False
    return Layout(unit, row, layer)


def flatten(spec: NetworkSpec, weights: Weights) -> Vector:
    """Return all numbers of a network as one float64 vector, ``(n_parameters,)``."""
    tensors = [weights[name].ravel() for name in spec.shapes]
    return np.concatenate(tensors, dtype=np.float64)


def unflatten(spec: NetworkSpec, vector: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Return the float32 tensors of a network whose numbers are given as one vector.

    Args:
        spec: Its architecture.
        vector: Shape ``(n_parameters,)``.

    Returns:
        Parts of one new array, none of which overlap.
    """
    rounded = vector.astype(np.float32)
    tensors, start = {}, 0
    for name, shape in spec.shapes.items():
        end = start + math.prod(shape)
        tensors[name] = rounded[start:end].reshape(shape)
        start = end
    return tensors
