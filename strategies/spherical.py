"""Interpolation along the great circle between two vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COLLINEAR = 0.9995
"""Cosine from which on two directions count as one; mergekit's ``slerp`` has the same."""


def arc_weights(
    first: NDArray[np.float32], second: NDArray[np.float32], t: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much of each of two vectors lies in a spherical interpolation of them.

    The interpolated vector is ``a * first + b * second`` with ``a = sin(t W) / sin W`` and
    ``b = sin((1 - t) W) / sin W`` for the angle ``W`` between them. Vectors of one length give a
    vector of that length, whereas the linear ``a = t``, ``b = 1 - t`` shrinks it, by ``sqrt(2)``
    half-way between vectors at a right angle. Three cases have no great circle:

    - nearly parallel, a cosine above 0.9995: linear, since ``sin W`` is almost zero;
    - nearly opposite, a cosine below -0.9995: the vector with the larger share as it is, the first
      one at ``t = 0.5``. Infinitely many great circles join opposite points, and a linear
      interpolation would cancel both vectors to almost nothing;
    - a vector of zeros, which has no direction: linear.

    Vectors of different lengths at an obtuse angle may give one longer than both, by a factor of
    at most ``1 / sin W``.

    Source: Shoemake 1985, "Animating Rotation with Quaternion Curves", SIGGRAPH, for vectors of
    length 1.

    Args:
        first: Vectors along the last axis, ``(..., n)``.
        second: As many vectors.
        t: Share of the first vector, in ``[0, 1]``.

    Returns:
        ``a`` and ``b``, each ``(..., 1)``; 1 and 0 for ``t = 1``, 0 and 1 for ``t = 0``.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    # Sums rather than matrix products, whose last bits may depend on the number of threads.
    lengths = [np.sqrt(np.square(each).sum(axis=-1, keepdims=True)) for each in (first, second)]
    product = lengths[0] * lengths[1]
    cosine = np.ones_like(product)  # where one vector is zero, as if they were parallel
    np.divide((first * second).sum(axis=-1, keepdims=True), product, cosine, where=product > 0)
    # A right angle stands in where the formula does not hold and its result is not used.
    angle = np.arccos(np.where(np.abs(cosine) > COLLINEAR, 0.0, cosine))
    cases = [cosine > COLLINEAR, cosine < -COLLINEAR]
    a = np.select(cases, [t, t >= 0.5], np.sin(t * angle) / np.sin(angle))
    b = np.select(cases, [1 - t, t < 0.5], np.sin((1 - t) * angle) / np.sin(angle))
    return a, b
