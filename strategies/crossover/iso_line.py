"""The first parent, moved along the line to the second, with a little noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class IsoLineCrossover(CrossoverOperator):
    """Move the first parent along the line through both, and add noise to every number.

    ``child = A + iso_sigma * size * z + line_sigma * y * (B - A)`` with ``z ~ N(0, 1)`` for each
    number by itself and one ``y ~ N(0, 1)`` for the whole child. The child stays near ``A``; how
    far it goes depends on how far apart the parents are, so steps become shorter as a population
    converges. ``y`` is as often negative: away from ``B``.

    ``size`` makes the noise independent of how large a layer's weights are: for a weight and the
    bias of a Linear the RMS of the weight's row in ``A``, or ``1 / sqrt(n_in)`` for a row of zeros;
    for a LayerNorm 1. The paper has ``size = 1`` throughout; with one absolute standard deviation
    the noise would drown one layer and not touch another.

    Source: Vassiliades and Mouret 2018, "Discovering the Elite Hypervolume by Leveraging
    Interspecies Correlation" (Iso+LineDD), arXiv:1804.03906. The defaults are those of pyribs,
    whose ``IsoLineOperator`` has one ``y`` per child, too. The noise in proportion to the weights
    is ours.

    Args:
        iso_sigma: Standard deviation of the noise relative to ``size``, at least 0.
        line_sigma: Standard deviation of the step along the line, relative to the distance of the
            parents, at least 0.

    Raises:
        ValueError: An argument is negative or not finite.
    """

    name = "iso_line"
    idempotent = False

    def __init__(self, iso_sigma: float = 0.01, line_sigma: float = 0.2) -> None:
        self.iso_sigma = number("iso_sigma", iso_sigma, low=0.0)
        self.line_sigma = number("line_sigma", line_sigma, low=0.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = parents
        step = self.line_sigma * rng.standard_normal()
        child: dict[str, NDArray[np.float32]] = {}
        for block in parents.spec.blocks:
            sizes = np.sqrt(np.square(first[block.weight]).mean(axis=1))  # (n_out,)
            sizes[sizes == 0] = 1 / math.sqrt(block.n_in)
            for name in block.tensors:
                noise = rng.standard_normal(first[name].shape, dtype=np.float32)
                noise *= self.iso_sigma
                if name == block.weight:
                    noise *= sizes[:, None]
                elif name == block.bias:
                    noise *= sizes
                child[name] = first[name] + noise + step * (second[name] - first[name])
        return child
