"""Every row of incoming weights from one parent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class RowCrossover(CrossoverOperator):
    """Take what every unit reads from one of two parents, and leave what reads it to chance.

    For each layer and each of its outputs, hidden units and actions alike, row ``r`` of the weight
    and entry ``r`` of the bias and of the normalization come from the first parent with
    probability ``share``, else from the second. A unit's outgoing column is mixed with the rows of
    the next layer; :class:`UnitCrossover` keeps it with the unit in the output layer.

    Source: Khadka and Tumer 2018, "Evolution-Guided Policy Gradient in Reinforcement Learning",
    arXiv:1805.07917, whose code (``crossover_inplace``) copies random rows back and forth between
    two networks. It treats the entries of the bias by themselves, and how many rows change is
    random; here a bias stays with its row, and rows are drawn as in uniform crossover (Syswerda
    1989, ICGA 3). Bodnar et al. 2020, "Proximal Distilled Evolutionary Reinforcement Learning",
    arXiv:1906.09960, show how far such children fall below their parents.

    Args:
        share: Probability of the first parent, in ``[0, 1]``.

    Raises:
        ValueError: ``share`` is outside ``[0, 1]``.
    """

    name = "row"

    def __init__(self, share: float = 0.5) -> None:
        self.share = number("share", share, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = parents
        child: dict[str, NDArray[np.float32]] = {}
        for block in parents.spec.blocks:
            from_first = rng.random(block.n_out) < self.share
            for name in block.tensors:
                owners = from_first[:, None] if name == block.weight else from_first
                child[name] = np.where(owners, first[name], second[name])
        return child
