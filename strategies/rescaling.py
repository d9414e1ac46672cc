"""Statistics of hidden units restored after crossover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.errors import NeedError
from strategies.forward import pre_activations
from strategies.parents import CONSTANT, Parent


def restore_statistics(
    spec: NetworkSpec, child: Weights, parents: Sequence[Parent]
) -> dict[str, NDArray[np.float32]]:
    """Give what enters each ReLU of a child the mean and deviation interpolated from its parents.

    Averaging units that are only roughly alike shrinks the variance of their sum, layer after
    layer. For each hidden unit, first layer to last, with ``mean`` and ``std`` of what enters its
    ReLU over the states, those of the child are set to

        ``mean* = sum_i share_i * mean_i``,  ``std* = sum_i share_i * std_i``

    by ``row * f`` and ``(bias - mean) * f + mean*`` with ``f = std* / std``: of the Linear, or of
    the LayerNorm where there is one. A unit that is constant in the child keeps its row and gets
    the mean alone.

    Source: Jordan et al. 2022, "REPAIR: REnormalizing Permuted Activations for Interpolation
    Repair", arXiv:2211.08403, equation 2. There the shares are those of the interpolation; here
    they are the ones with which a weighted mean of the parents comes closest to the child, set to
    0 where they are negative and scaled to sum to one, so that it serves any operator.

    Args:
        spec: Architecture of the child and of all parents.
        child: Float32 tensors by name; not changed.
        parents: Aligned parents with states, at least one.

    Returns:
        New tensors.

    Raises:
        NeedError: The parents have no states, or other widths than the child.
    """
    for parent in parents:
        if parent.spec != spec:
            raise NeedError(
                f"statistics are restored unit by unit, but the child is {spec} and {parent.id} is "
                f"{parent.spec}"
            )
    restored = {name: np.array(child[name]) for name in spec.shapes}
    shares = _shares(spec, child, parents)
    for index, block in enumerate(spec.blocks[:-1]):
        wanted_mean, wanted_std = (
            np.tensordot(shares, np.stack(values), axes=1).astype(np.float32)
            for values in zip(*(_statistics(p.responses[index]) for p in parents), strict=True)
        )
        responses = pre_activations(spec, restored, parents[0].states)[index]
        mean, std = _statistics(responses)
        varies = std > CONSTANT * np.sqrt(np.square(responses).mean(axis=0))
        factor = np.divide(wanted_std, std, out=np.ones_like(std), where=varies)
        weight, bias = (
            (block.weight, block.bias)
            if block.norm is None
            else (f"{block.norm}.weight", f"{block.norm}.bias")
        )
        restored[weight] *= factor[:, None] if block.norm is None else factor
        restored[bias] = (restored[bias] - mean) * factor + wanted_mean
    return restored


def _statistics(
    responses: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each unit, ``(n_units,)``."""
    return responses.mean(axis=0), responses.std(axis=0)


def _shares(spec: NetworkSpec, child: Weights, parents: Sequence[Parent]) -> NDArray[np.float64]:
    """Return the weight of each parent in the mean that comes closest to the child."""
    flat = [_flat(spec, weights) for weights in (child, *(p.weights for p in parents))]
    origin = flat[-1]
    directions = np.stack([parent - origin for parent in flat[1:]], axis=1)  # (P, n_parents)
    # The last column is zero: its share is what the others leave.
    shares = np.linalg.lstsq(directions[:, :-1], flat[0] - origin, rcond=None)[0]
    shares = np.maximum(np.append(shares, 1 - shares.sum()), 0.0)
    return np.asarray(shares / shares.sum())


def _flat(spec: NetworkSpec, weights: Weights) -> NDArray[np.float64]:
    return np.concatenate([weights[name].ravel() for name in spec.shapes]).astype(np.float64)
