"""A point between the ancestor and the average, nearer to the average the more parents agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import whole_number
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers


@crossovers.register
class ModelStockCrossover(CrossoverOperator):
    """Go from the common ancestor toward the average of the parents as far as these agree.

    For every layer with the task vectors ``tau_i = parent_i - ancestor`` of ``k`` parents:

    - ``c = mean of cos(tau_i, tau_j) over all pairs``, clipped to ``[0, 1]``;
    - ``t = k * c / (1 + (k - 1) * c)``;
    - ``child = t * average of the parents + (1 - t) * ancestor``.

    Parents that have changed in one direction (``c = 1``) give their average, and identical parents
    themselves; unrelated changes (``c = 0``) give the ancestor. There is nothing to set, and every
    child of the same parents is the same: variety has to come from mutation.

    A layer is a Linear together with its bias and its LayerNorm, taken as one vector; the few
    numbers of a bias alone have no angle worth trusting. A task vector of length zero has no
    direction; its cosines count as 0.

    Source: Jang et al. 2024, "Model Stock: All we need is just a few fine-tuned models", ECCV,
    arXiv:2403.19522. More than two parents have the mean of their pairwise cosines, as the authors
    say they do. The authors' code and mergekit take every tensor by itself, and do not clip: where
    parents disagree, ``t`` is negative there, without bound for opposite ones, and the child is
    thrown to the far side of the ancestor.

    Args:
        n_parents: How many parents a child has, at least 2.

    Raises:
        ValueError: ``n_parents`` is below 2.
    """

    name = "model_stock"
    needs = ("ancestor",)

    def __init__(self, n_parents: int = 2) -> None:
        self.n_parents = whole_number("n_parents", n_parents, 2)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        child = {}
        for block in parents.spec.blocks:
            ancestor = _joined(parents.ancestor, block.tensors)
            ratio = _ratio([_joined(parent, block.tensors) - ancestor for parent in parents])
            for name in block.tensors:
                start = parents.ancestor[name].astype(np.float64)
                average = sum(parent[name].astype(np.float64) for parent in parents) / len(parents)
                child[name] = (start + ratio * (average - start)).astype(np.float32)
        return child


def _joined(weights: Weights, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the tensors of one layer as a vector."""
    return np.concatenate([weights[name].ravel() for name in names]).astype(np.float64)


def _ratio(vectors: Sequence[NDArray[np.float64]]) -> float:
    """Return how far to go from the ancestor, 0, toward the average, 1."""
    cosines = [_cosine(first, second) for first, second in combinations(vectors, 2)]
    cosine = min(max(sum(cosines) / len(cosines), 0.0), 1.0)
    return len(vectors) * cosine / (1 + (len(vectors) - 1) * cosine)


def _cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    # Sums instead of dot products: those depend on the number of threads in their last bits.
    lengths = np.sqrt((first**2).sum()) * np.sqrt((second**2).sum())
    return float((first * second).sum() / lengths) if lengths > 0 else 0.0
