"""How much each parent of a child counts."""

from __future__ import annotations

import numpy as np


def draw_shares(low: float, high: float, n_parents: int, rng: np.random.Generator) -> list[float]:
    """Return the share of each parent; they sum to one.

    That of the first one is drawn evenly from ``[low, high]``. The second one has the rest; with
    more parents every way to split the rest among them is equally likely (a flat Dirichlet
    distribution).

    Args:
        low: Smallest share of the first parent.
        high: Largest share of the first parent.
        n_parents: Number of parents, at least 2.
        rng: Random stream; one number is drawn for two parents.
    """
    first = rng.uniform(low, high)
    if n_parents == 2:
        return [first, 1 - first]
    split: list[float] = rng.dirichlet(np.ones(n_parents - 1)).tolist()
    return [first, *((1 - first) * part for part in split)]
