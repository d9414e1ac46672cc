"""Normal noise in proportion to the weights around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from strategies.checks import number
from strategies.mutation.contract import Mutation, Newborn, mutations
from strategies.noise import row_sizes


@mutations.register
class GaussianMutation(Mutation):
    """Add normal noise in proportion to the weights around it.

    ``w' = w + m * scale * size * z`` with ``z ~ N(0, 1)`` and ``m ~ Bernoulli(share)`` for each
    number by itself. ``size`` makes the noise independent of how large a layer's weights are:

    - a weight: the RMS of its row, the incoming weights of one unit. A row of zeros takes
      ``1 / sqrt(n_in)``, the size that a fresh row has up to a factor;
    - the bias of a Linear: the same, as if it were one more weight of the row, so that a bias of
      zero moves as well;
    - the weight and bias of a LayerNorm: 1, the size of the normalized values they apply to.

    Source: Such et al. 2017, "Deep Neuroevolution", arXiv:1712.06567, there with one absolute
    standard deviation.

    Args:
        scale: Standard deviation of the noise relative to ``size``, at least 0.
        share: Probability that a number is changed at all, in ``[0, 1]``.

    Raises:
        ValueError: An argument is outside its range.
    """

    name = "gaussian"
    step_size = "scale"

    def __init__(self, scale: float = 0.05, share: float = 1.0) -> None:
        self.scale = number("scale", scale, low=0.0)
        self.share = number("share", share, 0.0, 1.0)

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Weights:
        """Return changed weights; see :class:`Mutation`."""
        weights = child.weights
        mutant: dict[str, NDArray[np.float32]] = {}
        for block in child.spec.blocks:
            sizes = row_sizes(block, weights)
            for name in block.tensors:
                noise = self._noise(rng, weights[name].shape)
                if name == block.weight:
                    noise *= sizes[:, None]
                elif name == block.bias:
                    noise *= sizes
                noise += weights[name]
                mutant[name] = noise
        return mutant

    def _noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
        noise = rng.standard_normal(shape, dtype=np.float32)
        noise *= self.scale
        if self.share < 1:
            noise *= rng.random(shape, dtype=np.float32) < self.share
        return noise
