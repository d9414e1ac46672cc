"""Closed-form repair: refit the output layer of a network to its target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from engine.learning.fast_mlp import FastMLP
from engine.learning.flat import FlatStack
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
    features = path.features(torch.from_numpy(states).t().contiguous())
    features = features.double().transpose(1, 2)  # (K, N, u)
    wanted = torch.from_numpy(targets).double().transpose(1, 2)  # (K, N, A)
    feature_mean = features.mean(dim=1, keepdim=True)
    wanted_mean = wanted.mean(dim=1, keepdim=True)
    features = features - feature_mean
    gram = features.transpose(1, 2) @ features / len(states)
    moment = features.transpose(1, 2) @ (wanted - wanted_mean) / len(states)
    size = gram.diagonal(dim1=1, dim2=2).mean(dim=1).view(-1, 1, 1)
    # A layer of dead units has size 0; the tiny constant keeps its system solvable.
    penalty = (ridge * size + 1e-12) * torch.eye(output.n_in, dtype=torch.float64)
    weight = torch.linalg.solve(gram + penalty, moment)  # (K, u, A)
    bias = (wanted_mean - feature_mean @ weight).squeeze(1)
    stack.view(buffer, output.weight).copy_(weight.transpose(1, 2))
    stack.view(buffer, output.bias).copy_(bias)
    return stack.unload(buffer)
