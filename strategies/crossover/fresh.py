"""A network with new random weights: a control."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class FreshCrossover(CrossoverOperator):
    """Make new random weights; needs no parents, only their architecture.

    Weights are drawn evenly from ``[-bound, bound]`` with ``bound = sqrt(6 / n_in)`` for a layer
    in front of a ReLU and ``sqrt(3 / n_in)`` for the output layer, so that the variance of the
    values stays the same from layer to layer. Biases are 0; a LayerNorm has weight 1 and bias 0.

    A control: what fine-tuning and selection reach without anything inherited.

    Source: He et al. 2015, "Delving Deep into Rectifiers", arXiv:1502.01852, equations 10 and 12,
    in the uniform form of ``torch.nn.init.kaiming_uniform_``.
    """

    name = "fresh"
    n_parents = 0
    idempotent = False

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        child: dict[str, NDArray[np.float32]] = {}
        output = parents.spec.blocks[-1]
        for block in parents.spec.blocks:
            bound = math.sqrt((3 if block is output else 6) / block.n_in)
            uniform = rng.random((block.n_out, block.n_in), dtype=np.float32)  # [0, 1)
            child[block.weight] = (2 * uniform - 1) * bound
            child[block.bias] = np.zeros(block.n_out, np.float32)
            if block.norm is not None:
                child[f"{block.norm}.weight"] = np.ones(block.n_out, np.float32)
                child[f"{block.norm}.bias"] = np.zeros(block.n_out, np.float32)
        return child
