"""How large noise has to be to matter equally wherever in a network it is added."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from populations.network import Block, Weights


def row_sizes(block: Block, weights: Weights) -> NDArray[np.float32]:
    """Return the size of the numbers that lead to each unit or action of a layer, ``(n_out,)``.

    That is the RMS of the weight's row, the incoming weights of one unit. A row of zeros takes
    ``1 / sqrt(n_in)``, the size that a fresh row has up to a factor. The bias counts as one more
    weight of the row, so that a bias of zero moves as well. Noise on a LayerNorm has the size 1, as
    the normalized values that it applies to.

    Args:
        block: The layer.
        weights: Float32 tensors by name.
    """
    sizes: NDArray[np.float32] = np.sqrt(np.square(weights[block.weight]).mean(axis=1))
    sizes[sizes == 0] = 1 / math.sqrt(block.n_in)
    return sizes
