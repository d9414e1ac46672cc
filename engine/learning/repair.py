"""Closed-form repair: refit the output layer of a network, or only what its actions share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.learning.fast_mlp import FastMLP
from engine.learning.flat import FlatStack
from engine.learning.minibatches import pad_states
from populations.network import NetworkSpec, Weights


def refit_output(
    spec: NetworkSpec,
    weights: Sequence[Weights],
    states: NDArray[np.float32],
    targets: NDArray[np.float32],
    ridge: float,
) -> list[dict[str, NDArray[np.float32]]]:
    """Return networks whose output layer is the ridge regression of the targets on the features.

    With centered features ``F (N, u)`` and targets ``Y (N, A)`` the new weight is
    ``(F^T F / N + r m I)^-1 F^T Y / N`` transposed, where ``m`` is the mean of the diagonal of
    ``F^T F / N``, and the bias puts back the means (Hoerl & Kennard 1970, with the penalty
    relative to the features' own size and none on the bias). Solved in float64.

    Args:
        spec: Architecture of all networks.
        weights: K networks.
        states: Float32 of shape ``(N, n_inputs)``.
        targets: Values to fit, float32 of shape ``(K, n_actions, N)``.
        ridge: ``r``, positive.

    Returns:
        New networks; a network whose features never move keeps its output weight at zero and
        gets the mean target as its bias.
    """
    output = spec.blocks[-1]
    stack = FlatStack(spec, len(weights))
    buffer = stack.load(weights)
    path = FastMLP(stack, buffer, stack.new())
    features = path.features(pad_states(states))[:, :, : len(states)]
    # One network at a time: batched solvers round differently at another place in memory.
    for k in range(len(weights)):
        wanted = torch.from_numpy(targets[k]).double()
        weight, bias = _ridge_regression(features[k].double(), wanted, ridge)
        stack.view(buffer, output.weight)[k] = weight
        stack.view(buffer, output.bias)[k] = bias
    return stack.unload(buffer)


def refit_common_value(
    spec: NetworkSpec,
    weights: Weights,
    states: NDArray[np.float32],
    wanted: NDArray[np.float32],
    ridge: float,
) -> dict[str, NDArray[np.float32]]:
    """Return the network with its mean over actions refitted, and nothing else changed.

    A softmax does not see what all actions have in common, so a network that was trained through
    one has the right preferences around an arbitrary value. The same vector is added to every row
    of the output weight, and the same number to every bias: the ridge regression, as in
    :func:`refit_output`, of what the mean lacks on the features. Differences between actions stay
    as they are, up to float32 rounding.

    Args:
        spec: Architecture of the network.
        weights: The network.
        states: Float32 of shape ``(N, n_inputs)``.
        wanted: What the mean over actions should be, float32 of shape ``(N,)``.
        ridge: Penalty relative to the features' own size, positive.
    """
    output = spec.blocks[-1]
    stack = FlatStack(spec, 1)
    path = FastMLP(stack, stack.load([weights]), stack.new())
    features = path.features(pad_states(states))[0, :, : len(states)].double()
    weight = torch.from_numpy(weights[output.weight]).double().mean(dim=0)
    bias = torch.from_numpy(weights[output.bias]).double().mean()
    lacking = torch.from_numpy(wanted).double() - weight @ features - bias
    slope, offset = _ridge_regression(features, lacking.unsqueeze(0), ridge)
    refitted = {name: tensor.copy() for name, tensor in weights.items()}
    refitted[output.weight] += slope.float().numpy()
    refitted[output.bias] += offset.float().numpy()
    return refitted


def _ridge_regression(features: Tensor, wanted: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Return weight ``(A, u)`` and bias ``(A,)`` for features ``(u, N)`` and targets ``(A, N)``."""
    n_units, n_states = features.shape
    feature_mean = features.mean(dim=1, keepdim=True)
    wanted_mean = wanted.mean(dim=1, keepdim=True)
    features = features - feature_mean
    gram = features @ features.T / n_states
    moment = features @ (wanted - wanted_mean).T / n_states
    # A layer of dead units has size 0; the tiny constant keeps its system solvable.
    penalty = ridge * gram.diagonal().mean() + 1e-12
    weight = torch.linalg.solve(gram + penalty * torch.eye(n_units, dtype=torch.float64), moment).T
    return weight, (wanted_mean - weight @ feature_mean).squeeze(1)
