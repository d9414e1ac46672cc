"""Spherical interpolation of two parents, layer by layer."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import limits
from strategies.flat import flatten, layout_of, unflatten
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers
from strategies.spherical import arc_cosines, arc_weights


@crossovers.register
class SlerpCrossover(CrossoverOperator):
    """Interpolate two parents along the great circle between them, layer by layer.

    ``child = [sin(t W) A + sin((1 - t) W) B] / sin W``, where ``A`` and ``B`` are the weight and
    the bias of one Linear as one flat vector and ``W = arccos(<A, B> / (|A| |B|))`` is the angle
    between them; ``t`` is drawn evenly from ``[low, high]``, once per child, and is the share of
    the first parent, as in :class:`WeightedCrossover`. Averaging unrelated layers shrinks them,
    and with them what they pass on; this keeps their length.

    - Weight and bias share one angle, so that each pre-activation of the child is the same mixture
      of those of its parents, given the same inputs.
    - A LayerNorm is interpolated linearly: its weights are factors around 1, and a mixture whose
      shares sum to more than 1 would enlarge all of them.
    - Layers that are nearly parallel or zero are interpolated linearly, nearly opposite ones are
      taken from the parent with the larger share; see :func:`strategies.spherical.arc_weights`.

    Source: Shoemake 1985, "Animating Rotation with Quaternion Curves", SIGGRAPH; for networks
    mergekit's ``slerp``, with the same threshold. There the bias is a tensor with an angle of its
    own, the normalization is treated like any tensor, opposite tensors cancel, and ``t`` is the
    share of the second model.

    Args:
        low: Smallest share of the first parent, in ``[0, 1]``.
        high: Largest share of the first parent; equal to ``low`` for a fixed one.

    Raises:
        ValueError: An argument is outside ``[0, 1]``, or ``low`` is above ``high``.
    """

    name = "slerp"

    def __init__(self, low: float = 0.1, high: float = 0.9) -> None:
        self.low, self.high = limits(low, high, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = (flatten(parents.spec, each) for each in parents)
        t = rng.uniform(self.low, self.high)
        groups = layout_of(parents.spec).layer
        a, b = arc_weights(arc_cosines(first, second, groups), t)
        return unflatten(parents.spec, a[groups] * first + b[groups] * second)
