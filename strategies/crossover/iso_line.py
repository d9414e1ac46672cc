"""The first parent, moved along the line to the second, with a little noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.checks import number
from strategies.flat import flatten, layout_of, unflatten
from strategies.noise import row_sizes
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
        first, second = (flatten(parents.spec, each) for each in parents)
        step = self.line_sigma * rng.standard_normal()
        noise = rng.standard_normal(first.size, dtype=np.float32)
        noise *= self.iso_sigma * _sizes(parents.spec, parents[0])
        return unflatten(parents.spec, first + noise + step * (second - first))


def _sizes(spec: NetworkSpec, weights: Weights) -> NDArray[np.float64]:
    """Return the size of what each number's noise is in proportion to, ``(n_parameters,)``."""
    layout = layout_of(spec)
    rows = np.concatenate([row_sizes(block, weights) for block in spec.blocks], dtype=np.float64)
    return np.where(layout.row > 0, rows[layout.unit], 1.0)
