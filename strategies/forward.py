"""The forward pass of a network in NumPy, for a few hundred states at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import LAYER_NORM_EPSILON, NetworkSpec, Weights


def pre_activations(
    spec: NetworkSpec, weights: Weights, states: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Return what enters each ReLU: the output of each hidden Linear, normalized where it is.

    Args:
        spec: Architecture of the weights.
        weights: Float32 tensors by name.
        states: Flattened observations, shape ``(n_states, n_inputs)``.

    Returns:
        One array of shape ``(n_states, n_units)`` per hidden layer, first to last.

    Raises:
        ValueError: The states are not of shape ``(n_states, n_inputs)``.
    """
    _check_states(spec, states)
    layers: list[NDArray[np.float32]] = []
    for block in spec.blocks[:-1]:
        features = np.maximum(layers[-1], 0) if layers else states
        values = features @ weights[block.weight].T
        values += weights[block.bias]
        if block.norm is not None:
            values -= values.mean(axis=1, keepdims=True)
            variance = np.square(values).mean(axis=1, keepdims=True)
            values /= np.sqrt(variance + LAYER_NORM_EPSILON)
            values *= weights[f"{block.norm}.weight"]
            values += weights[f"{block.norm}.bias"]
        layers.append(values)
    return layers


def hidden_activations(
    spec: NetworkSpec, weights: Weights, states: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Return what leaves each ReLU; arguments and shapes as in :func:`pre_activations`."""
    return [np.maximum(values, 0) for values in pre_activations(spec, weights, states)]


def q_values(
    spec: NetworkSpec, weights: Weights, states: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the outputs of the network, shape ``(n_states, n_actions)``.

    Arguments and errors as in :func:`pre_activations`.
    """
    hidden = pre_activations(spec, weights, states)
    features = np.maximum(hidden[-1], 0) if hidden else states
    output = spec.blocks[-1]
    values: NDArray[np.float32] = features @ weights[output.weight].T + weights[output.bias]
    return values


def _check_states(spec: NetworkSpec, states: NDArray[np.float32]) -> None:
    if states.ndim != 2 or states.shape[1] != spec.n_inputs:
        raise ValueError(
            f"states must be of shape (n_states, {spec.n_inputs}), flattened observations, "
            f"not {states.shape}"
        )
