"""Q-values of many small networks at once, in NumPy.

For networks of this size the arithmetic is the smaller part; the rest is calls and memory traffic.
Hence activations are kept as ``(network, unit, lane)`` with one more row of ones behind the units,
so that a single matmul adds the bias too, and are written into buffers that are made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from populations.network import LAYER_NORM_EPSILON, Block, NetworkSpec, Weights

"""What torch's LayerNorm adds to the variance by default."""


@dataclass(frozen=True, slots=True)
class StackedLayer:
    """One block of K networks.

    Attributes:
        affine: Weights with the bias as last column, ``(K, out, in + 1)``. In front of a LayerNorm
            they are centered over the outputs, and so are their products: the mean that the
            LayerNorm would subtract is zero.
        gain: Weight of the LayerNorm, ``(K, out, 1)``, or None.
        shift: Bias of the LayerNorm, ``(K, out, 1)``, or None.
    """

    affine: NDArray[np.float32]
    gain: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, block: Block, weights: Sequence[Weights]) -> Self:
        """Stack one block of several networks."""
        matrix = np.stack([network[block.weight] for network in weights])
        bias = np.stack([network[block.bias] for network in weights])[:, :, None]
        affine = np.concatenate([matrix, bias], axis=2, dtype=np.float32)
        if block.norm is None:
            return cls(affine)
        mean = affine.mean(axis=1, keepdims=True, dtype=np.float64)
        gain = np.stack([network[f"{block.norm}.weight"] for network in weights])
        shift = np.stack([network[f"{block.norm}.bias"] for network in weights])
        return cls((affine - mean).astype(np.float32), gain[:, :, None], shift[:, :, None])

    def select(self, indices: NDArray[np.intp]) -> Self:
        """Return the same block of the given networks."""
        if self.gain is None or self.shift is None:
            return type(self)(self.affine[indices])
        return type(self)(self.affine[indices], self.gain[indices], self.shift[indices])

    def forward(self, inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> None:
        """Fill ``outputs`` ``(K, out, L)`` from ``inputs`` ``(K, in + 1, L)``, without the ReLU."""
        np.matmul(self.affine, inputs, out=outputs)
        if self.gain is not None and self.shift is not None:
            n_units = outputs.shape[1]
            average = np.full((1, n_units), 1 / n_units, np.float32)
            variance = np.matmul(average, np.square(outputs))  # (K, 1, L), 8 times faster than mean
            outputs /= np.sqrt(variance + np.float32(LAYER_NORM_EPSILON))
            outputs *= self.gain
            outputs += self.shift


class StackedNetworks:
    """K networks of one architecture; the values of one never depend on the others.

    All networks have matrices of one shape, so each is multiplied by the same BLAS kernel whatever
    K is. The number of lanes does choose the kernel: compare values for equal L only.

    Args:
        layers: The blocks, from input to output.
    """

    def __init__(self, layers: Sequence[StackedLayer]) -> None:
        self._layers = tuple(layers)
        self._buffers: tuple[NDArray[np.float32], ...] = ()

    @classmethod
    def of(cls, spec: NetworkSpec, weights: Sequence[Weights]) -> Self:
        """Stack networks of one spec.

        Raises:
            ValueError: There is no network.
        """
        if not weights:
            raise ValueError("expected at least one network")
        return cls([StackedLayer.of(block, weights) for block in spec.blocks])

    @property
    def n_networks(self) -> int:
        """Number of networks, K."""
        return len(self._layers[0].affine)

    def select(self, indices: NDArray[np.intp]) -> Self:
        """Return a stack of the given networks, with buffers of its own."""
        return type(self)([layer.select(indices) for layer in self._layers])

    def forward(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the Q-values, ``(K, A, L)``, for observations ``(K, L, n_inputs)``.

        The result is overwritten by the next call.
        """
        if not self._buffers or self._buffers[0].shape[2] != observations.shape[1]:
            self._buffers = self._make_buffers(observations.shape[1])
        self._buffers[0][:, :-1] = observations.transpose(0, 2, 1)
        for i, layer in enumerate(self._layers):
            outputs = self._buffers[i + 1]
            layer.forward(self._buffers[i], outputs[:, :-1])
            if i + 1 < len(self._layers):
                np.maximum(outputs, 0, out=outputs)  # the row of ones stays
        return self._buffers[-1][:, :-1]

    def _make_buffers(self, n_lanes: int) -> tuple[NDArray[np.float32], ...]:
        """Return the inputs of every layer and the outputs of the last, each with a row of ones."""
        widths = [layer.affine.shape[2] for layer in self._layers]
        widths.append(self._layers[-1].affine.shape[1] + 1)
        return tuple(np.ones((self.n_networks, width, n_lanes), np.float32) for width in widths)
