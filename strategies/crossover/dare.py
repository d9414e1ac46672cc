"""A random part of the changes since the common ancestor, rescaled."""

from __future__ import annotations

import numpy as np

from populations.network import NetworkSpec
from strategies.checks import number
from strategies.flat import Vector
from strategies.registry import crossovers
from strategies.task_vectors import (
    Shares,
    TaskVectorCrossover,
    Vectors,
    average,
    elected_average,
)


@crossovers.register
class DareCrossover(TaskVectorCrossover):
    """Drop a random part of each parent's changes since the common ancestor, and enlarge the rest.

    Of the task vectors ``tau_i = parent_i - ancestor`` every entry by itself is set to 0 with
    probability ``drop_rate`` and divided by ``1 - drop_rate`` otherwise, so that its expected value
    stays what it was. ``child = ancestor + scale * sum_i share_i * tau_i`` with the sparse ones,
    for all tensors, biases and LayerNorm included; with ``elect`` the sum is replaced by the
    election and average of :class:`TiesCrossover`, without its trimming. ``scale`` is drawn evenly
    from ``[low, high]``, once per child; the shares sum to one. The random drops alone make every
    child of two parents another one.

    Not idempotent: identical parents give themselves with noise, and exactly themselves only for
    ``drop_rate`` 0 and scale 1.

    Source: Yu et al. 2024, "Language Models are Super Mario: Absorbing Abilities from Homologous
    Models as a Free Lunch", ICML, arXiv:2311.03099. The paper drops 90 % and more of the tiny
    changes of fine-tuned language models. The changes of a small network are large, and what
    dropping adds to each is noise with ``sqrt(drop_rate / (1 - drop_rate))`` times its size, 0.5
    for the default, 3 for 90 %; keep the rate at 0.3 or below. mergekit's ``dare_linear`` and
    ``dare_ties`` enlarge what is left so that the sum of its magnitudes stays that of the whole
    tensor; here, as in the paper, the factor is ``1 / (1 - drop_rate)``, whatever was dropped.

    Args:
        drop_rate: Probability that an entry is dropped, in ``[0, 1)``.
        elect: Whether an entry is averaged over the parents of the elected sign only.
        low: Smallest scale.
        high: Largest scale; equal to ``low`` for a fixed one.
        shares: How much each parent counts: ``equal``, or ``random``, drawn for each child evenly
            from all shares that are at least 0 and sum to one.
        n_parents: How many parents a child has, at least 2.

    Raises:
        ValueError: An argument is outside its range, or ``low`` is above ``high``.
    """

    name = "dare"

    def __init__(
        self,
        drop_rate: float = 0.2,
        elect: bool = False,
        low: float = 1.0,
        high: float = 1.0,
        shares: Shares = "equal",
        n_parents: int = 2,
    ) -> None:
        super().__init__(low, high, shares, n_parents)
        self.drop_rate = number("drop_rate", drop_rate, 0.0, 1.0)
        if self.drop_rate == 1.0:
            raise ValueError("drop_rate must be below 1: nothing would be left to enlarge")
        if not isinstance(elect, bool):
            raise ValueError(f"elect must be true or false, not {elect!r}")
        self.elect = elect

    def _merge(
        self, spec: NetworkSpec, vectors: Vectors, shares: Vector, rng: np.random.Generator
    ) -> Vector:
        keep_rate = 1 - self.drop_rate
        sparse = np.where(rng.random(vectors.shape) < keep_rate, vectors / keep_rate, 0.0)
        return elected_average(sparse, shares) if self.elect else average(sparse, shares)
