"""Hand-written forward and backward pass of stacked multi-layer perceptrons.

Knows Linear, LayerNorm and ReLU only; its gradients are tested against autograd through
``StackedQNetwork``. A spec with other layers needs a path of its own beside this one.

Activations are feature-major, ``(K, units, B)``: states are contiguous, so bias, norm, ReLU and
loss run over long vectors, and no product needs a transposed copy. With B a multiple of 32 the
outcome of a network is, bit for bit, independent of how many others are in the stack.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.learning.flat import FlatStack
from populations.network import LAYER_NORM_EPSILON

STATES_MULTIPLE = 32
"""What the number of states of a pass must be a multiple of for that independence."""


class FastMLP:
    """Q-values of K networks on one minibatch, and the gradient of their parameters.

    Args:
        stack: Layout of the parameters.
        parameters: Buffer that is read at every forward pass.
        gradients: Buffer that every backward pass overwrites.
    """

    def __init__(self, stack: FlatStack, parameters: Tensor, gradients: Tensor) -> None:
        self._n_networks = stack.n_networks
        self._layers = [
            _Linear(
                weight=stack.view(parameters, block.weight),
                bias=stack.view(parameters, block.bias),
                weight_gradient=stack.view(gradients, block.weight),
                bias_gradient=stack.view(gradients, block.bias),
            )
            for block in stack.spec.blocks
        ]
        self._norms = [
            None
            if block.norm is None
            else _LayerNorm(
                gain=stack.view(parameters, f"{block.norm}.weight"),
                shift=stack.view(parameters, f"{block.norm}.bias"),
                gain_gradient=stack.view(gradients, f"{block.norm}.weight"),
                shift_gradient=stack.view(gradients, f"{block.norm}.bias"),
            )
            for block in stack.spec.blocks[:-1]
        ]
        self._active: list[Tensor] = []
        self._masks: Sequence[Tensor] | None = None

    def features(self, states: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Return what the output layer reads, ``(K, units, B)``; arguments as in ``forward``."""
        signal = states.expand(self._n_networks, *states.shape)
        self._active = []
        self._masks = masks
        for depth, (layer, norm) in enumerate(zip(self._layers[:-1], self._norms, strict=True)):
            signal = layer.forward(signal)
            if norm is not None:
                signal = norm.forward(signal)
            signal = signal.relu_()
            if masks is not None:
                signal = signal.mul_(masks[depth])
            self._active.append(signal)
        return signal

    def forward(self, states: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Return Q-values.

        Args:
            states: Float32 of shape ``(n_inputs, B)``, shared by all networks.
            masks: What the units of each hidden layer are multiplied with, ``(units, B)``, not
                negative, shared by all networks: dropout. None drops nothing.

        Returns:
            Float32 of shape ``(K, n_actions, B)``.
        """
        return self._layers[-1].forward(self.features(states, masks))

    def backward(self, error: Tensor) -> None:
        """Write the gradient of the last forward pass.

        Args:
            error: Gradient of the loss with respect to the Q-values, ``(K, n_actions, B)``.
        """
        for depth in reversed(range(len(self._layers))):
            self._layers[depth].backward(error)
            if depth > 0:
                error = self._layers[depth].input_error(error)
                if self._masks is not None:
                    error = error.mul_(self._masks[depth - 1])
                error = torch.ops.aten.threshold_backward(error, self._active[depth - 1], 0)
                norm = self._norms[depth - 1]
                if norm is not None:
                    error = norm.backward(error)


class _Linear:
    """``W x + b`` of K networks."""

    def __init__(
        self, weight: Tensor, bias: Tensor, weight_gradient: Tensor, bias_gradient: Tensor
    ) -> None:
        self._weight = weight
        self._bias = bias.unsqueeze(2)
        self._weight_gradient = weight_gradient
        self._bias_gradient = bias_gradient
        self._signal = weight

    def forward(self, signal: Tensor) -> Tensor:
        self._signal = signal
        return torch.baddbmm(self._bias, self._weight, signal)

    def backward(self, error: Tensor) -> None:
        if self._signal.shape[1] == 1:  # bmm rounds this product by its place in memory
            torch.sum(error * self._signal, dim=2, keepdim=True, out=self._weight_gradient)
        else:
            torch.bmm(error, self._signal.transpose(1, 2), out=self._weight_gradient)
        torch.sum(error, dim=2, out=self._bias_gradient)

    def input_error(self, error: Tensor) -> Tensor:
        return torch.bmm(self._weight.transpose(1, 2), error)


class _LayerNorm:
    """``gain * (x - mean) / sqrt(variance + eps) + shift`` over the units of K networks.

    Ba et al. 2016 (arXiv:1607.06450), with the biased variance, as in torch.
    """

    def __init__(
        self, gain: Tensor, shift: Tensor, gain_gradient: Tensor, shift_gradient: Tensor
    ) -> None:
        self._gain = gain.unsqueeze(2)
        self._shift = shift.unsqueeze(2)
        self._gain_gradient = gain_gradient
        self._shift_gradient = shift_gradient
        self._normal = gain
        self._inverse_deviation = gain

    def forward(self, signal: Tensor) -> Tensor:
        centered = signal - signal.mean(dim=1, keepdim=True)
        variance = centered.square().mean(dim=1, keepdim=True)
        self._inverse_deviation = variance.add_(LAYER_NORM_EPSILON).rsqrt_()
        self._normal = centered.mul_(self._inverse_deviation)
        return torch.addcmul(self._shift, self._normal, self._gain)

    def backward(self, error: Tensor) -> Tensor:
        torch.sum(error * self._normal, dim=2, out=self._gain_gradient)
        torch.sum(error, dim=2, out=self._shift_gradient)
        error = error * self._gain
        along = (error * self._normal).mean(dim=1, keepdim=True)
        error = error - error.mean(dim=1, keepdim=True)
        return error.addcmul_(self._normal, along, value=-1).mul_(self._inverse_deviation)
