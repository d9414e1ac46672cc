"""Hidden units in another order: the same function with permuted tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, UnitLayer, Weights
from strategies.errors import AlignmentError

Permutations = Sequence[NDArray[np.intp]]
"""One index array per hidden layer: unit ``i`` of the result is unit ``permutation[i]``."""


def permute_units(
    spec: NetworkSpec, weights: Weights, permutations: Permutations
) -> dict[str, NDArray[np.float32]]:
    """Return the same function with its hidden units in another order.

    Rows of a layer's weight, its bias and its normalization move together with the columns of the
    next weight. Tensors without hidden units are passed on as they are, not copied.

    Args:
        spec: Architecture of the weights.
        weights: Float32 tensors by name.
        permutations: One per hidden layer; unit ``i`` of the result is unit ``permutation[i]``.

    Raises:
        AlignmentError: The number of permutations is not the number of hidden layers.
    """
    if len(permutations) != len(spec.units):
        raise AlignmentError(
            f"expected {len(spec.units)} permutations, one per hidden layer, "
            f"not {len(permutations)}"
        )
    permuted = dict(weights)
    for layer, permutation in zip(spec.units, permutations, strict=True):
        permute_layer(permuted, layer, permutation)
    return {name: permuted[name] for name in spec.shapes}


def permute_layer(
    weights: dict[str, NDArray[np.float32]], layer: UnitLayer, permutation: NDArray[np.intp]
) -> None:
    """Replace, in the dictionary, the tensors that hold units of one layer."""
    for tensor, axis in (*layer.incoming, *layer.outgoing):
        weights[tensor] = weights[tensor].take(permutation, axis=axis)
