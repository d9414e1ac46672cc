"""Every layer from one parent."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers

Mode = Literal["random", "alternate", "cut"]


@crossovers.register
class LayerCrossover(CrossoverOperator):
    """Take every layer, a Linear together with its normalization, from one of two parents.

    - ``random``: layer ``l`` is that of the first parent with probability ``share``. If this gives
      all layers of a deeper network to one parent, one layer, each as likely, changes sides, so
      that a child is never a copy; ``share`` 0 or 1 exchanges exactly one layer.
    - ``alternate``: layers 0, 2, 4, ... of the first parent, the others of the second; every child
      of two parents is the same.
    - ``cut``: the layers before a cut of the first parent, those behind it of the second; the cut
      is drawn evenly among the ``n_layers - 1`` places between two layers. ``share`` has no part
      in it.

    A network without hidden layers has one layer, which comes from either parent: from the first
    with probability ``share`` in ``random`` mode, always in ``alternate``, with probability 1/2 in
    ``cut``.

    Source: the ``alternate`` mode is the layer crossover of AgentFarm's recombination pipeline;
    the ``random`` one is uniform crossover (Syswerda 1989, ICGA 3) with layers as genes,
    and ``cut`` is one-point crossover (Holland 1975, "Adaptation in Natural and Artificial
    Systems") with the same genes.

    Args:
        mode: ``random``, ``alternate`` or ``cut``.
        share: Probability of the first parent, in ``[0, 1]``; the other modes do not use it.

    Raises:
        ValueError: ``mode`` is not known, or ``share`` is outside ``[0, 1]``.
    """

    name = "layer"
    n_parents = 2

    def __init__(self, mode: Mode = "random", share: float = 0.5) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be 'random', 'alternate' or 'cut', not {mode!r}")
        self.mode = mode
        self.share = number("share", share, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        first, second = parents
        blocks = parents.spec.blocks
        return {
            name: (first if take else second)[name].copy()
            for block, take in zip(blocks, self._from_first(len(blocks), rng), strict=True)
            for name in block.tensors
        }

    def _from_first(self, n_layers: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return which layers the first parent gives."""
        if self.mode == "alternate":
            return np.resize(np.array([True, False]), n_layers)
        if self.mode == "cut":
            # A single layer has nothing to cut: it lies on either side of a cut at 0 or 1.
            cut = rng.integers(1, n_layers) if n_layers > 1 else rng.integers(2)
            return np.arange(n_layers) < cut
        from_first: NDArray[np.bool_] = rng.random(n_layers) < self.share
        if n_layers > 1 and (from_first.all() or not from_first.any()):
            from_first[rng.integers(n_layers)] ^= True
        return from_first
