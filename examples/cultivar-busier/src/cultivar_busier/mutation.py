"""Signs that flip."""

from __future__ import annotations

import numpy as np

from populations.network import Weights
from strategies.checks import number
from strategies.mutation import Mutation, Newborn


class SignFlipMutation(Mutation):
    """Change the sign of a few numbers, each with the same probability.

    Source: made for this example.

    Args:
        share: Probability that a number changes its sign, in ``[0, 1]``.

    Raises:
        ValueError: ``share`` is outside ``[0, 1]``.
    """

    name = "sign_flip"
    step_size = "share"  # what evolution.mutation.adapt may change
    step_size_range = (0.0, 1.0)

    def __init__(self, share: float = 0.01) -> None:
        self.share = number("share", share, 0.0, 1.0)

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Weights:
        """Return changed weights; see :class:`Mutation`."""
        return {
            name: np.where(rng.random(tensor.shape) < self.share, -tensor, tensor)
            for name, tensor in child.weights.items()
        }
