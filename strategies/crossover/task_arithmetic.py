"""The average change since the common ancestor, scaled."""

from __future__ import annotations

import numpy as np

from populations.network import NetworkSpec
from strategies.flat import Vector
from strategies.registry import crossovers
from strategies.task_vectors import Shares, TaskVectorCrossover, Vectors, average


@crossovers.register
class TaskArithmeticCrossover(TaskVectorCrossover):
    """Add what the parents have learned since their common ancestor to that ancestor.

    ``child = ancestor + scale * sum_i share_i * (parent_i - ancestor)`` for all tensors, biases and
    LayerNorm included, with one ``scale`` per child, drawn evenly from ``[low, high]``, and shares
    that sum to one. Scale 1 is the average of the parents, 0 the ancestor; above 1 the child goes
    on beyond the average, which unrelated changes shrink, and below 0 it unlearns.

    Identical parents give themselves for scale 1 only.

    Source: Ilharco et al. 2023, "Editing Models with Task Arithmetic", ICLR, arXiv:2212.04089. The
    paper adds up the task vectors, ``ancestor + lambda * sum_i (parent_i - ancestor)``; its lambda
    is ``scale / n_parents``, so that a scale means the same for any number of parents (mergekit's
    ``normalize``). The paper takes the best lambda on validation data; here it varies between
    children, and selection decides.

    Args:
        low: Smallest scale.
        high: Largest scale; equal to ``low`` for a fixed one.
        shares: How much each parent counts: ``equal``, or ``random``, drawn for each child evenly
            from all shares that are at least 0 and sum to one.
        n_parents: How many parents a child has, at least 2.

    Raises:
        ValueError: An argument is outside its range, or ``low`` is above ``high``.
    """

    name = "task_arithmetic"

    def __init__(
        self, low: float = 0.8, high: float = 1.2, shares: Shares = "equal", n_parents: int = 2
    ) -> None:
        super().__init__(low, high, shares, n_parents)

    def _merge(
        self, spec: NetworkSpec, vectors: Vectors, shares: Vector, rng: np.random.Generator
    ) -> Vector:
        return average(vectors, shares)
