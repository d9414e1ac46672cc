"""Q-networks in torch: one plain module, and many networks of one shape stacked as one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from populations.network import LAYER_NORM_EPSILON, NetworkSpec, Weights


class StackedQNetwork:
    """K networks of one architecture as tensors of shape ``(K, out, in)`` and ``(K, out)``.

    One forward or backward pass serves all K networks, which share nothing but the call. This is
    the autograd path: plain tensor operations that any optimizer can train.

    Args:
        spec: Architecture of every network.
        parameters: Float32 tensors by the names of ``spec``, each with K in front of its shape.
    """

    def __init__(self, spec: NetworkSpec, parameters: dict[str, Tensor]) -> None:
        self.spec = spec
        self.parameters = parameters

    @classmethod
    def from_weights(cls, spec: NetworkSpec, weights: Sequence[Weights]) -> StackedQNetwork:
        """Stack copies of the weights of K networks; the new parameters ask for gradients.

        Args:
            spec: Architecture of every network.
            weights: Float32 tensors by name, one mapping per network.

        Raises:
            ValueError: There is no network to stack.
            GenomeShapeError: Weights are not those of ``spec``.
            GenomeValueError: A weight is NaN or infinite.
        """
        if not weights:
            raise ValueError("a stack needs at least one network")
        for k, network in enumerate(weights):
            spec.check(network, f"network {k} of the stack")
        return cls(
            spec,
            {
                name: torch.from_numpy(np.stack([w[name] for w in weights])).requires_grad_()
                for name in spec.shapes
            },
        )

    @property
    def n_networks(self) -> int:
        """Number of stacked networks, K."""
        return len(self.parameters[self.spec.matrices[0]])

    def to_weights(self) -> list[dict[str, NDArray[np.float32]]]:
        """Return a copy of the weights of each network."""
        stacked = {name: tensor.detach().numpy() for name, tensor in self.parameters.items()}
        return [
            {name: tensor[k].copy() for name, tensor in stacked.items()}
            for k in range(self.n_networks)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return the Q-values of all networks.

        Args:
            x: Observations, ``(B, n_inputs)`` for all networks or ``(K, B, n_inputs)``.

        Returns:
            Q-values of shape ``(K, B, n_actions)``.
        """
        output = self.spec.blocks[-1]
        return self._linear(self.features(x), output.weight, output.bias)

    def features(self, x: Tensor) -> Tensor:
        """Return what the output layer reads, ``(K, B, units)``, for ``x`` as in ``forward``."""
        if x.ndim == 2:
            x = x.expand(self.n_networks, *x.shape)
        for block in self.spec.blocks[:-1]:
            x = self._linear(x, block.weight, block.bias)
            if block.norm is not None:
                x = functional.layer_norm(x, (block.n_out,), eps=LAYER_NORM_EPSILON)
                gain = self.parameters[f"{block.norm}.weight"].unsqueeze(1)
                x = torch.addcmul(self.parameters[f"{block.norm}.bias"].unsqueeze(1), x, gain)
            x = functional.relu(x)
        return x

    def _linear(self, x: Tensor, weight: str, bias: str) -> Tensor:
        matrix = self.parameters[weight].transpose(1, 2)  # (K, in, out)
        return torch.baddbmm(self.parameters[bias].unsqueeze(1), x, matrix)


def sequential(spec: NetworkSpec, weights: Weights | None = None) -> nn.Sequential:
    """Build the plain torch module of a spec.

    Its tensors have the names of the spec: an outer Sequential flattens the observation and holds
    the layers under ``network``. Dropout slots are filled with a Dropout that drops nothing.

    Args:
        spec: The architecture.
        weights: Float32 tensors by name; None keeps torch's random initial weights.

    Returns:
        A module from ``(B, *observation_shape)`` to ``(B, n_actions)``; it takes one observation
        without the B, too.

    Raises:
        GenomeShapeError: The weights are not those of ``spec``.
        GenomeValueError: A weight is NaN or infinite.
    """
    modules: list[nn.Module] = []
    *hidden, output = spec.blocks
    for block in hidden:
        modules.append(nn.Linear(block.n_in, block.n_out))
        if block.norm is not None:
            modules.append(nn.LayerNorm(block.n_out, eps=LAYER_NORM_EPSILON))
        modules.append(nn.ReLU())
        if spec.dropout_slots:
            modules.append(nn.Dropout(p=0.0))
    modules.append(nn.Linear(output.n_in, output.n_out))
    flatten = nn.Flatten(start_dim=-len(spec.observation_shape))
    module = nn.Sequential(
        OrderedDict[str, nn.Module](flatten=flatten, network=nn.Sequential(*modules))
    )
    if weights is not None:
        spec.check(weights, "the weights of the module")
        tensors = {name: torch.from_numpy(np.array(weights[name])) for name in spec.shapes}
        module.load_state_dict(tensors)
    return module
