"""Gradients of a network's outputs in NumPy, for a few hundred states at a time.

The gradient on one state is, for every tensor, an outer product of what comes back to a layer and
what went into it. Both functions below therefore need one backward pass and no loop over states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from populations.network import LAYER_NORM_EPSILON, Block, NetworkSpec, Weights
from strategies.forward import hidden_activations

Array = NDArray[np.float32]


def output_gradients(spec: NetworkSpec, weights: Weights, states: Array) -> list[dict[str, Array]]:
    """Return, for each action, the gradient of its Q-value averaged over the states.

    The derivative of a ReLU at zero is taken as 0, as torch does.

    Args:
        spec: Architecture of the weights.
        weights: Float32 tensors by name.
        states: Flattened observations, shape ``(n_states, n_inputs)``, at least one.

    Returns:
        One gradient per action: float32 tensors by name, shaped as the weights.

    Raises:
        ValueError: There are no states, or they are not of shape ``(n_states, n_inputs)``.
    """
    n_states, n_actions = _count(states), spec.n_actions
    seeds = np.zeros((n_actions, n_states, n_actions), np.float32)
    seeds[np.arange(n_actions), :, np.arange(n_actions)] = np.float32(1 / n_states)
    found: dict[str, Array] = {}
    features = [states, *hidden_activations(spec, weights, states)]
    for flow in _backward(spec, weights, features, seeds):
        found[flow.block.weight] = flow.at_linear.swapaxes(1, 2) @ flow.inputs  # (A, out, in)
        found[flow.block.bias] = flow.at_linear.sum(axis=1)
        if flow.block.norm is not None:
            found[f"{flow.block.norm}.weight"] = (flow.at_norm * flow.normalized).sum(axis=1)
            found[f"{flow.block.norm}.bias"] = flow.at_norm.sum(axis=1)
    return [{name: found[name][action] for name in spec.shapes} for action in range(n_actions)]


def fisher_diagonal(
    spec: NetworkSpec,
    weights: Weights,
    states: Array,
    temperature: float = 1.0,
    activations: Sequence[Array] | None = None,
) -> dict[str, Array]:
    """Return the diagonal Fisher information of the softmax policy of a Q-network.

    ``F_j = E_s E_{a ~ pi(.|s)} [(d log pi(a|s) / d theta_j)^2]``: the mean over the states, and the
    expectation over actions in full, not by sampling.

    Q-values have no likelihood of their own, and their scale differs between teachers. The policy
    is ``pi = softmax((Q - mean_a Q) / (temperature * unit))``, where the unit is what students
    imitate their teachers in: the median over states of the gap between the best and second best
    action, their mean gap where the median is zero, and 1 for a network without any preference.
    The unit counts as a constant in the derivative. With one action all of it is zero.

    Source: Matena and Raffel 2022, "Merging Models with Fisher-Weighted Averaging",
    arXiv:2111.09832.

    Args:
        spec: Architecture of the weights.
        weights: Float32 tensors by name.
        states: Flattened observations, shape ``(n_states, n_inputs)``, at least one.
        temperature: Above 0; at 1 the policy takes its best action about e times as often as the
            second best on a state with the median gap.
        activations: What leaves each ReLU on the states, where it is known already.

    Returns:
        Float32 tensors by name, at least 0, shaped as the weights.

    Raises:
        ValueError: There are no states, they are not of shape ``(n_states, n_inputs)``, or the
            temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature!r}")
    n_states = _count(states)
    if activations is None:
        activations = hidden_activations(spec, weights, states)
    features, output = [states, *activations], spec.blocks[-1]
    values = features[-1] @ weights[output.weight].T + weights[output.bias]
    sharpness = np.float32(1 / (temperature * _unit(values)))
    policy = np.exp((values - values.max(axis=1, keepdims=True)) * sharpness)
    policy /= policy.sum(axis=1, keepdims=True)  # (n_states, n_actions)
    # d log pi(a) / d Q_k = (1[a = k] - pi_k) / unit. With the root of pi(a) in front, the sum of
    # the squares over actions is the expectation.
    seeds = (np.eye(spec.n_actions, dtype=np.float32)[:, None, :] - policy) * sharpness
    seeds *= np.sqrt(policy.T / np.float32(n_states))[:, :, None]
    found: dict[str, Array] = {}
    for flow in _backward(spec, weights, features, seeds):
        squares = np.einsum("snu,snu->nu", flow.at_linear, flow.at_linear)
        found[flow.block.weight] = squares.T @ np.square(flow.inputs)
        found[flow.block.bias] = squares.sum(axis=0)
        if flow.block.norm is not None:
            squares = np.square(flow.at_norm).sum(axis=0)
            found[f"{flow.block.norm}.weight"] = (squares * np.square(flow.normalized)).sum(axis=0)
            found[f"{flow.block.norm}.bias"] = squares.sum(axis=0)
    return {name: found[name] for name in spec.shapes}


@dataclass(frozen=True, slots=True)
class _Flow:
    """What went into a block, and what comes back to it; S seeds and N states.

    Attributes:
        block: The block.
        inputs: What its Linear reads, ``(N, n_in)``.
        at_linear: Gradient at the output of the Linear, ``(S, N, n_out)``.
        at_norm: Gradient at the output of the LayerNorm; that at the Linear where there is none.
        normalized: What the LayerNorm scales and shifts, ``(N, n_out)``; empty where there is none.
    """

    block: Block
    inputs: Array
    at_linear: Array
    at_norm: Array
    normalized: Array


def _backward(
    spec: NetworkSpec, weights: Weights, features: Sequence[Array], seeds: Array
) -> Iterator[_Flow]:
    """Yield what flows back to each block, last to first.

    Args:
        spec: Architecture of the weights.
        weights: Tensors by name.
        features: What enters each Linear, ``(N, n_in)``.
        seeds: Gradients at the outputs, ``(S, N, n_actions)``.
    """
    back = seeds
    for index in reversed(range(len(spec.blocks))):
        block, inputs = spec.blocks[index], features[index]
        at_norm, normalized = back, np.empty(0, np.float32)
        if block.norm is not None:
            linear = inputs @ weights[block.weight].T + weights[block.bias]
            linear -= linear.mean(axis=1, keepdims=True)
            variance = np.square(linear).mean(axis=1, keepdims=True)
            deviation = np.sqrt(variance + np.float32(LAYER_NORM_EPSILON))
            normalized = linear / deviation
            back = at_norm * weights[f"{block.norm}.weight"]
            along = (back * normalized).mean(axis=2, keepdims=True)
            back = (back - back.mean(axis=2, keepdims=True) - along * normalized) / deviation
        yield _Flow(block, inputs, back, at_norm, normalized)
        if index > 0:
            back = (back @ weights[block.weight]) * (inputs > 0)


def _unit(values: Array) -> float:
    """Return the unit of Q-values of shape ``(n_states, n_actions)``; see the Fisher above."""
    if values.shape[1] < 2:
        return 1.0
    ordered = np.sort(values, axis=1)
    gaps = np.sort(ordered[:, -1] - ordered[:, -2])
    # By hand: np.median takes as long as a backward pass.
    median = (gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) / 2
    return float(median) or float(gaps.mean()) or 1.0


def _count(states: Array) -> int:
    """Return the number of states, at least 1."""
    if len(states) == 0:
        raise ValueError("gradients are averaged over states; expected at least one, not none")
    return len(states)
