"""K networks of one spec in one flat buffer, so that an optimizer step is a handful of calls.

The buffer is laid out tensor by tensor, and within a tensor network by network: matrices first,
vectors behind them. Every tensor of all networks is then one contiguous ``(K, out, in)`` view, as
batched matrix products want it, and everything that is quantized is one contiguous range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from populations.network import NetworkSpec, Weights
from populations.quantization import MAX_CODE, SMALLEST_AMPLITUDE

# Vectorized loops of torch treat the last elements of a range with scalar code that may round
# differently. Ranges that are a multiple of this have no such rest on any CPU, which is what
# makes the bytes of a network independent of how many others are in the stack.
ALIGNMENT = 64


class FlatStack:
    """Views of one flat float32 buffer as the tensors of K networks.

    Attributes:
        spec: Architecture of the networks.
        n_networks: K.
        n_matrix: Length of the first part of the buffer, which holds the matrices.
        size: Length of the buffer.
    """

    def __init__(self, spec: NetworkSpec, n_networks: int) -> None:
        self.spec = spec
        self.n_networks = n_networks
        self._offsets: dict[str, int] = {}
        offset = 0
        for name in spec.matrices:
            self._offsets[name] = offset
            offset += _padded(n_networks * math.prod(spec.shapes[name]))
        self.n_matrix = offset
        for name in spec.vectors:
            self._offsets[name] = offset
            offset += _padded(n_networks * math.prod(spec.shapes[name]))
        self.size = offset

    def new(self) -> Tensor:
        """Return a buffer of zeros."""
        return torch.zeros(self.size)

    def view(self, buffer: Tensor, name: str) -> Tensor:
        """Return one tensor of all networks, ``(K, *shape)``, as a view of ``buffer``."""
        shape = self.spec.shapes[name]
        offset = self._offsets[name]
        flat = buffer[offset : offset + self.n_networks * math.prod(shape)]
        return flat.view(self.n_networks, *shape)

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """Return all tensors as views of ``buffer``."""
        return {name: self.view(buffer, name) for name in self.spec.shapes}

    def load(self, weights: Sequence[Weights]) -> Tensor:
        """Return a buffer that holds the given networks."""
        buffer = self.new()
        for name, view in self.views(buffer).items():
            view.copy_(torch.from_numpy(np.stack([network[name] for network in weights])))
        return buffer

    def unload(self, buffer: Tensor) -> list[dict[str, np.ndarray]]:
        """Return the networks of a buffer as float32 arrays by name."""
        views = {name: view.numpy() for name, view in self.views(buffer).items()}
        return [
            {name: view[k].copy() for name, view in views.items()} for k in range(self.n_networks)
        ]

    def clip(self, gradients: Tensor, max_norm: float) -> None:
        """Scale down, in place, the gradient of every network whose norm exceeds ``max_norm``.

        The norm is Euclidean, over all tensors of one network (Pascanu et al. 2013,
        arXiv:1211.5063), with the constant of ``torch.nn.utils.clip_grad_norm_``.
        """
        squares = torch.zeros(self.n_networks).index_add_(0, self._owners, gradients.square())
        factors = (max_norm / (squares.sqrt() + 1e-6)).clamp_(max=1.0)
        if bool((factors < 1).any()):
            gradients.mul_(factors[self._owners])

    @cached_property
    def _owners(self) -> Tensor:
        """Number of the network that each element of a buffer belongs to; padding has 0."""
        return self.spread(torch.arange(self.n_networks)).long()

    def spread(self, values: Tensor) -> Tensor:
        """Return a buffer where every element of network ``k`` is ``values[k]``."""
        buffer = self.new()
        for view in self.views(buffer).values():
            view.copy_(values.view(-1, *([1] * (view.ndim - 1))).expand_as(view))
        return buffer


class FakeQuantizer:
    """Rounds matrices of a buffer to what the int8 codec can hold; vectors are copied.

    Training through it with straight-through gradients (Bengio et al. 2013, arXiv:1308.3432)
    makes the float network agree with its genome. The scales are measured by :meth:`rescale`
    rather than at each step: they move slowly, and rounding alone is three fused calls. Until the
    next measurement, a weight that has outgrown its row may take a code beyond +-127.
    """

    def __init__(self, stack: FlatStack) -> None:
        self._stack = stack
        self._scale = torch.ones(stack.n_matrix)
        self._inverse = torch.ones(stack.n_matrix)
        self._views = [stack.view(self._scale, name) for name in stack.spec.matrices]

    def rescale(self, buffer: Tensor) -> None:
        """Measure the scale of every row: largest magnitude divided by 127."""
        for name, scale in zip(self._stack.spec.matrices, self._views, strict=True):
            amplitude = self._stack.view(buffer, name).abs().amax(dim=2, keepdim=True)
            row = torch.where(amplitude < SMALLEST_AMPLITUDE, 1.0, amplitude / MAX_CODE)
            scale.copy_(row.expand_as(scale))
        torch.reciprocal(self._scale, out=self._inverse)

    def apply(self, buffer: Tensor, out: Tensor) -> None:
        """Write the rounded matrices and the unchanged vectors of ``buffer`` to ``out``."""
        n = self._stack.n_matrix
        matrices = out[:n]
        torch.mul(buffer[:n], self._inverse, out=matrices)
        matrices.round_().mul_(self._scale)
        out[n:].copy_(buffer[n:])


def _padded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT
