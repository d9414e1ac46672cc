"""The largest changes since the common ancestor, where the parents agree on the direction."""

from __future__ import annotations

import math

import numpy as np

from populations.network import NetworkSpec
from strategies.checks import number
from strategies.flat import Vector
from strategies.registry import crossovers
from strategies.task_vectors import Shares, TaskVectorCrossover, Vectors, elected_average


@crossovers.register
class TiesCrossover(TaskVectorCrossover):
    """Merge the changes since the common ancestor without those that are small or outvoted.

    With the task vectors ``tau_i = parent_i - ancestor``, for every tensor by itself:

    1. *Trim*: of each ``tau_i`` keep the ``ceil(density * size)`` entries of largest magnitude, and
       those that equal the smallest of them; the others become 0.
    2. *Elect*: ``sign_j = sign(sum_i share_i * tau_ij)`` for each entry ``j``.
    3. *Merge*: ``merged_j`` is the average, by share, of the ``tau_ij`` with that sign, over only
       the parents that have it.

    ``child = ancestor + scale * merged``, with one ``scale`` per child, drawn evenly from
    ``[low, high]``, and shares that sum to one. Where the parents are level, and where all of them
    are trimmed, the child has the weight of the ancestor. Biases and LayerNorm are tensors like
    others; with a density above 0 each keeps at least its largest change.

    Identical parents give themselves for density 1 and scale 1 only.

    Source: Yadav et al. 2023, "TIES-Merging: Resolving Interference When Merging Models", NeurIPS,
    arXiv:2306.01708, where all shares are equal. Three differences: the authors' code trims the
    network as one vector, so that a layer with small changes loses all of them; here, and in
    mergekit, every tensor keeps its part. Where the election is level, the authors' code takes the
    sign that most other entries have, and mergekit a plus, which favors one parent for no reason.
    The paper keeps 20 % of large redundant networks; of normally distributed changes that has 65 %
    of the squared length, and the half that is the default here has 93 %.

    Args:
        density: Part of each tensor's entries that is kept, in ``[0, 1]``.
        low: Smallest scale.
        high: Largest scale; equal to ``low`` for a fixed one.
        shares: How much each parent counts: ``equal``, or ``random``, drawn for each child evenly
            from all shares that are at least 0 and sum to one.
        n_parents: How many parents a child has, at least 2.

    Raises:
        ValueError: An argument is outside its range, or ``low`` is above ``high``.
    """

    name = "ties"

    def __init__(
        self,
        density: float = 0.5,
        low: float = 0.8,
        high: float = 1.2,
        shares: Shares = "equal",
        n_parents: int = 2,
    ) -> None:
        super().__init__(low, high, shares, n_parents)
        self.density = number("density", density, 0.0, 1.0)

    def _merge(
        self, spec: NetworkSpec, vectors: Vectors, shares: Vector, rng: np.random.Generator
    ) -> Vector:
        return elected_average(_trimmed(spec, vectors, self.density), shares)


def _trimmed(spec: NetworkSpec, vectors: Vectors, density: float) -> Vectors:
    """Return, of each tensor, the entries of largest magnitude; 0 for the others."""
    magnitudes = np.abs(vectors)
    trimmed = np.zeros_like(vectors)
    start = 0
    for shape in spec.shapes.values():
        size = math.prod(shape)
        here = slice(start, start + size)
        start += size
        n_dropped = size - math.ceil(density * size)
        if n_dropped == size:
            continue
        # Entries of equal magnitude are kept together: which comes first is no reason to drop it.
        smallest_kept = np.partition(magnitudes[:, here], n_dropped, axis=1)[:, n_dropped, None]
        np.copyto(trimmed[:, here], vectors[:, here], where=magnitudes[:, here] >= smallest_kept)
    return trimmed
