"""Round a trained Q-network to int8 without training, and mend what that breaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.learning.repair import refit_output
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec, Weights
from strategies.forward import q_values

RIDGE = 1e-3


def round_network(
    spec: NetworkSpec,
    weights: Weights,
    states: NDArray[np.float32],
    lineage: Lineage,
    ridge: float = RIDGE,
) -> Genome:
    """Return the int8 network that is closest to a float one on the given states.

    Q-values are large and the gaps between actions small, so rounding alone may change actions
    all over. Hence the hidden layers are rounded first; then the output layer is moved by the
    ridge regression of what they get wrong, which leaves it alone where the states tell nothing;
    and after the output layer is rounded as well, its float bias takes up the mean error.

    Args:
        spec: Architecture.
        weights: Float32 tensors by name.
        states: Float32 ``(N, n_inputs)``, at least one; best those that the network visits.
        lineage: Where the genome comes from.
        ridge: Penalty on the move of the output layer, relative to the size of the features.

    Raises:
        GenomeValueError: A weight is NaN or infinite.
    """
    output = spec.blocks[-1]
    wanted = q_values(spec, weights, states)
    mended = Genome.from_weights(spec, weights, lineage).to_weights()
    mended |= {name: weights[name] for name in output.tensors}
    error = wanted - q_values(spec, mended, states)  # (N, n_actions)
    (move,) = refit_output(spec, [mended], states, error.T[None].copy(), ridge)
    mended |= {name: weights[name] + move[name] for name in output.tensors}
    rounded = Genome.from_weights(spec, mended, lineage).to_weights()
    error = wanted - q_values(spec, rounded, states)
    rounded[output.bias] = rounded[output.bias] + error.mean(axis=0, dtype=np.float64).astype("f4")
    # What was rounded once rounds to the same codes and scales again.
    return Genome.from_weights(spec, rounded, lineage)
