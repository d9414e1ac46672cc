"""Mutation of the int8 codes, in whole steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import Weights
from populations.quantization import MAX_CODE, dequantize, quantize
from strategies.checks import number, whole_number
from strategies.mutation.contract import Mutation, Newborn, mutations


@mutations.register
class IntegerStepMutation(Mutation):
    """Move int8 codes up or down by whole steps, so that quantizing the mutant loses nothing.

    Each matrix is quantized, row by row, to codes ``q`` and scales; then, for each code::

        q' = clip(q + n_steps * z, -127, 127)
        z  = 1 or -1 with probability rate / 2 each, 0 otherwise

    and the mutant is ``q' * scale``. The first code of largest magnitude of each row stays: it is
    +-127 and sets the scale of the row. So quantizing the mutant gives exactly the codes ``q'`` and
    the scales of the child, as long as nothing trains the mutant in between. A row of zeros has no
    scale of its own and stays. Biases and normalizations are not quantized, and stay as they are.

    A step is ``max|row| / 127``: the noise follows the size of each row by itself. It has an RMS of
    ``n_steps * sqrt(rate)`` steps; with the defaults 2 % of the largest weight of the row.

    Source: none; the additive step of one code is the integer form of a Gaussian step. Flipping
    single bits of a code would move it by up to 64 steps at once.

    Args:
        rate: Probability that a code moves, in ``[0, 1]``.
        n_steps: How many steps it moves by, at least 1.

    Raises:
        ValueError: An argument is outside its range.
    """

    name = "integer_steps"
    step_size = "rate"
    step_size_range = (0.0, 1.0)

    def __init__(self, rate: float = 0.25, n_steps: int = 5) -> None:
        self.rate = number("rate", rate, 0.0, 1.0)
        self.n_steps = whole_number("n_steps", n_steps, low=1)

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Weights:
        """Return changed weights; see :class:`Mutation`.

        Raises:
            GenomeValueError: A matrix holds NaN or infinity.
        """
        mutant = {name: tensor.copy() for name, tensor in child.weights.items()}
        for name in child.spec.matrices:
            codes, scales = quantize(child.weights[name])
            mutant[name] = dequantize(self._step(codes, rng), scales)
        return mutant

    def _step(self, codes: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.int8]:
        """Return the codes of a mutant, shape ``(n_out, n_in)``."""
        draws = rng.random(codes.shape)
        directions = (draws < self.rate / 2).astype(np.int16) - (draws >= 1 - self.rate / 2)
        magnitudes = np.abs(codes.astype(np.int16))
        directions[np.arange(len(codes)), magnitudes.argmax(axis=1)] = 0
        directions[magnitudes.max(axis=1) == 0] = 0
        reach = min(self.n_steps, 2 * MAX_CODE)  # beyond it, every step ends at the same code
        stepped: NDArray[np.int16] = np.clip(codes + reach * directions, -MAX_CODE, MAX_CODE)
        return stepped.astype(np.int8)
