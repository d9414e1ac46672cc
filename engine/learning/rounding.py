"""Round a trained Q-network to int8 without training, and mend what that breaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.learning.repair import refit_output
from populations.errors import GenomeValueError
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec, Weights
from populations.quantization import MAX_CODE, dequantize, quantize
from strategies.forward import hidden_activations, q_values

RIDGE = 1e-3
DAMPING = 1e-2


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
    it is rounded unit by unit, each making up for the errors of those before
    (:func:`round_with_feedback`); and its float bias takes up the mean error that is left.

    Args:
        spec: Architecture.
        weights: Float32 tensors by name.
        states: Float32 ``(N, n_inputs)``, at least one; best those that the network visits.
        lineage: Where the genome comes from; an empty ``basis`` becomes its own id.
        ridge: Penalty on the move of the output layer, relative to the size of the features.

    Raises:
        GenomeShapeError: The weights are not those of the architecture.
        GenomeValueError: A weight, or a Q-value on these states, is NaN or infinite.
    """
    output = spec.blocks[-1]
    mended = Genome.from_weights(spec, weights, lineage).to_weights()
    mended |= {name: weights[name] for name in output.tensors}
    with np.errstate(over="ignore", invalid="ignore"):  # overflows are refused below
        wanted = q_values(spec, weights, states)
        error = wanted - q_values(spec, mended, states)  # (N, n_actions)
    if not np.isfinite(error).all():
        raise GenomeValueError("cannot round a network whose Q-values are NaN or infinite")
    (move,) = refit_output(spec, [mended], states, error.T[None].copy(), ridge)
    mended |= {name: weights[name] + move[name] for name in output.tensors}
    features = [states, *hidden_activations(spec, mended, states)][-1]
    mended[output.weight] = round_with_feedback(mended[output.weight], features)
    error = wanted - q_values(spec, mended, states)
    mended[output.bias] = mended[output.bias] + error.mean(axis=0, dtype=np.float64).astype("f4")
    # What was rounded once rounds to the same codes and scales again.
    return Genome.from_weights(spec, mended, lineage)


def round_with_feedback(
    weight: NDArray[np.float32], features: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return a weight rounded to int8 column by column, the rest making up for each error.

    After a column is rounded, those not yet rounded are moved to where the outputs on the given
    features, less their mean, are closest to the wanted ones again. The largest weight of a row
    keeps its code, so that the row keeps its scale. Features that never move change nothing.

    Source: GPTQ, Frantar et al. 2023 (arXiv:2210.17323), columns by falling size of the feature.

    Args:
        weight: Float32 ``(out, in)``.
        features: What is multiplied by it, float32 ``(N, in)``.

    Returns:
        The dequantized weight, float32 of the same shape, which quantizes to itself.
    """
    centered = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    gram = centered.T @ centered / len(features)
    order = np.argsort(-gram.diagonal(), kind="stable")
    # A layer of dead units has size 0; the tiny constant keeps its matrix invertible.
    damping = DAMPING * gram.diagonal().mean() + 1e-12
    gram = gram[np.ix_(order, order)] + damping * np.eye(len(order))
    feedback = np.linalg.cholesky(np.linalg.inv(gram)).T  # upper triangular
    codes, scales = quantize(weight)
    is_largest = np.zeros(weight.shape, bool)
    is_largest[np.arange(len(weight)), np.abs(weight).argmax(axis=1)] = True
    steps, wanted = scales.astype(np.float64), weight.astype(np.float64)
    for place, column in enumerate(order):
        rounded = np.clip(np.rint(wanted[:, column] / steps), -MAX_CODE, MAX_CODE)
        rounded = np.where(is_largest[:, column], codes[:, column], rounded)
        codes[:, column] = rounded
        error = (wanted[:, column] - rounded * steps) / feedback[place, place]
        wanted[:, order[place + 1 :]] -= np.outer(error, feedback[place, place + 1 :])
    return dequantize(codes, scales)
