"""Interpolation along the great circle between two vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies.flat import Vector

COLLINEAR = 0.9995
"""Cosine from which on two directions count as one; mergekit's ``slerp`` has the same."""
LINEAR = 0
"""Group of the numbers that are mixed linearly, whatever their angle."""


def arc_cosines(first: Vector, second: Vector, groups: NDArray[np.intp]) -> Vector:
    """Return the cosine of the angle between two networks, for each group of their numbers.

    Args:
        first: All numbers of a network.
        second: All numbers of another one.
        groups: To which group each of them belongs; 0 if it is to be mixed linearly.

    Returns:
        Shape ``(n_groups,)``; 1 for group 0, and where a vector is zero and has no direction.
    """
    # Sums rather than matrix products, whose last bits may depend on the number of threads.
    squares = np.bincount(groups, first * first) * np.bincount(groups, second * second)
    products = np.bincount(groups, first * second)
    has_angle = squares > 0
    has_angle[LINEAR] = False
    cosines = np.ones_like(squares)
    np.divide(products, np.sqrt(squares), out=cosines, where=has_angle)
    return cosines


def arc_weights(cosine: Vector, t: float) -> tuple[Vector, Vector]:
    """Return how much of each of two vectors lies in a spherical interpolation of them.

    The interpolated vector is ``a * first + b * second`` with ``a = sin(t W) / sin W`` and
    ``b = sin((1 - t) W) / sin W`` for the angle ``W`` between them. Vectors of one length give a
    vector of that length, whereas the linear ``a = t``, ``b = 1 - t`` shrinks it, by ``sqrt(2)``
    half-way between vectors at a right angle. Three cases have no great circle:

    - nearly parallel, a cosine above 0.9995: linear, since ``sin W`` is almost zero;
    - nearly opposite, a cosine below -0.9995: the vector with the larger share as it is, the first
      one at ``t = 0.5``. Infinitely many great circles join opposite points, and a linear
      interpolation would cancel both vectors to almost nothing;
    - a vector of zeros, which has no direction: linear, see :func:`arc_cosines`.

    Vectors of different lengths at an obtuse angle may give one longer than both, by a factor of
    at most ``1 / sin W``.

    Source: Shoemake 1985, "Animating Rotation with Quaternion Curves", SIGGRAPH, for vectors of
    length 1.

    Args:
        cosine: Cosines of the angles between pairs of vectors, ``(n,)``.
        t: Share of the first vector of each pair, in ``[0, 1]``.

    Returns:
        ``a`` and ``b``, each ``(n,)``; 1 and 0 for ``t = 1``, 0 and 1 for ``t = 0``.
    """
    is_linear, is_opposite = cosine > COLLINEAR, cosine < -COLLINEAR
    # A right angle stands in where the formula does not hold and its result is not used.
    angle = np.arccos(np.where(is_linear | is_opposite, 0.0, cosine))
    sine = np.sin(angle)
    a = np.where(is_opposite, float(t >= 0.5), np.sin(t * angle) / sine)
    b = np.where(is_opposite, float(t < 0.5), np.sin((1 - t) * angle) / sine)
    return np.where(is_linear, t, a), np.where(is_linear, 1 - t, b)
