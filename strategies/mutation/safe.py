"""Safe mutation: noise that moves the Q-values, not the weights, by a chosen amount."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.checks import number
from strategies.forward import q_values
from strategies.gradients import output_gradients
from strategies.mutation.contract import Mutation, Newborn, mutations

MAX_STATES = 256
FLOOR = 0.1
"""Below this share of the RMS of all sensitivities, the noise fades with the sensitivity."""
TOLERANCE = 0.01
"""How far the measured change may be from the target, relative to the target."""
MAX_PASSES = 20
"""Forward passes to find the size of the step; three to eight are usual."""


@mutations.register
class SafeMutation(Mutation):
    """Add noise that is small where the outputs are sensitive, sized by what it does to them.

    ``w'_j = w_j + c * d_j`` for every number ``j`` of the network, biases and normalizations
    included, with ``z_j ~ N(0, 1)``, the states ``x`` and the actions ``k``::

        s_j = sqrt(sum_k (mean_x dQ_k(x) / dw_j)^2)
        S   = sqrt(mean_j s_j^2)
        d_j = z_j / s_j                  where s_j >= 0.1 S
        d_j = z_j * s_j / (0.1 S)^2      elsewhere, which is 0 where s_j is

    One factor ``c`` for the network makes the measured change the one that was asked for::

        A(x, k) = Q_k(x) - mean_k Q_k(x)
        change  = RMS_{x,k}(A'(x, k) - A(x, k)) / RMS_{x,k}(A(x, k))

    ``change = 0.1`` thus moves what tells the actions apart by a tenth of its own size, whatever
    the scale of the Q-values and the size of the network. It is found by trying factors on the
    states, each tried on the float32 mutant itself: the result is within 1 % of ``change``, or, if
    20 passes do not get there, the closest that was tried. With a single action, ``A`` is ``Q``;
    where ``A`` is zero on all states, ``change`` is absolute. If there are more than 256 states,
    at most 256 of them, evenly spaced, are used for both.

    Source: SM-G-SUM of Lehman et al. 2018, "Safe Mutations for Deep and Recurrent Neural Networks
    through Output Gradients", GECCO, arXiv:1712.06563, with the line search of its SM-R. We differ
    where the outputs hardly react. There the authors' code (uber-research/safemutations) divides by
    0.01, and by 1 where ``s_j = 0``, so that the weights of a unit that is off on all states get
    noise of arbitrary size, which no output shows until the unit wakes up in a later generation.
    Here a number moves less and less as its effect vanishes, and a dead unit stays as it is. Their
    floor is absolute and depends on the scale of the Q-values; ours is relative, and higher. On
    CartPole students of 50 numbers, a floor of 0.01 let ``change = 0.1`` move single matrices by
    half their size, 0.1 by an eighth; either way the best action changed on 3 % of the states.

    Args:
        change: Root mean square of the change of the centered Q-values relative to themselves, at
            least 0.

    Raises:
        ValueError: ``change`` is not a finite number of at least 0.
    """

    name = "safe"
    needs = ("states",)
    step_size = "change"

    def __init__(self, change: float = 0.1) -> None:
        self.change = number("change", change, low=0.0)

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Weights:
        """Return changed weights; see :class:`Mutation`.

        Raises:
            ValueError: There are no states, or no step moves the Q-values to finite other ones.
        """
        spec, weights, states = child.spec, child.weights, _some(child.states)
        before = _preferences(spec, weights, states)
        scale = _rms(before) or 1.0
        # A step that is tried may be too large for float32; it measures as NaN or infinity.
        with np.errstate(over="ignore", invalid="ignore"):
            direction, slope = _direction(spec, sensitivities(spec, weights, states), rng)

            def mutant(factor: float) -> dict[str, NDArray[np.float32]]:
                return {
                    name: (weights[name] + factor * step).astype(np.float32)
                    for name, step in direction.items()
                }

            def measure(factor: float) -> float:
                return _rms(_preferences(spec, mutant(factor), states) - before) / scale

            if self.change == 0:
                return mutant(0.0)
            return mutant(_calibrated(measure, self.change, self.change * scale / slope))


def sensitivities(
    spec: NetworkSpec, weights: Weights, states: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Return how much the mean Q-values react to each number: ``s_j`` of :class:`SafeMutation`.

    Args:
        spec: Architecture of the weights.
        weights: Float32 tensors by name.
        states: Flattened observations, ``(n_states, n_inputs)``, at least one.

    Returns:
        Float64 tensors by name, shaped as the weights, at least 0.
    """
    gradients = output_gradients(spec, weights, states)
    return {
        name: np.sqrt(sum(np.square(each[name].astype(np.float64)) for each in gradients))
        for name in spec.shapes
    }


def _some(states: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if states is None or len(states) == 0:
        raise ValueError("the mutation safe needs states to measure on; there are none")
    return states[:: math.ceil(len(states) / MAX_STATES)]


def _direction(
    spec: NetworkSpec, sensitivity: dict[str, NDArray[np.float64]], rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Return ``d``, and about how much the outputs move per unit of the factor."""
    squares = sum(float(np.vdot(s, s)) for s in sensitivity.values())
    floor = FLOOR * math.sqrt(squares / spec.n_parameters)
    direction = {}
    moved = 0.0
    for name, s in sensitivity.items():
        direction[name] = rng.standard_normal(s.shape) * s / np.square(np.maximum(s, floor))
        moved += float(np.square(direction[name] * s).sum())
    return direction, math.sqrt(moved / spec.n_actions)


def _preferences(
    spec: NetworkSpec, weights: Weights, states: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return Q minus its mean over the actions, ``(n_states, n_actions)``; Q for one action."""
    values = q_values(spec, weights, states).astype(np.float64)
    return values if spec.n_actions == 1 else values - values.mean(axis=1, keepdims=True)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _calibrated(measure: Callable[[float], float], target: float, start: float) -> float:
    """Return the factor whose measured change is closest to the target.

    A secant in logarithms: as if the change were a power of the factor, at first the power 1. Once
    there is a factor on either side of the target, guesses stay between the two, and every fourth
    one is their geometric mean, which ends in the target wherever the change is continuous.

    Raises:
        ValueError: No factor that was tried changed anything measurably.
    """
    low, high = -math.inf, math.inf  # logarithms of factors on either side
    at, power = math.log(start), 1.0
    best, best_error = start, math.inf
    before: tuple[float, float] | None = None
    for attempt in range(1, MAX_PASSES + 1):
        change = measure(math.exp(at))
        reacts = 0 < change < math.inf
        error = math.log(change / target) if reacts else math.inf
        if abs(error) < best_error:
            best, best_error = math.exp(at), abs(error)
        if best_error <= TOLERANCE:
            break
        if change < target:
            low = max(at, low)
        else:  # NaN is the overflow of too large a step
            high = min(at, high)
        if reacts:
            if before is not None and at != before[0]:
                power = min(max((error - before[1]) / (at - before[0]), 0.25), 4.0)
            before = (at, error)
            guess = at - error / power
        else:
            guess = at + (2.0 if change == 0 else -2.0)
        is_bracketed = math.isfinite(low) and math.isfinite(high)
        if is_bracketed and (attempt % 4 == 0 or not low < guess < high):
            guess = (low + high) / 2
        at = guess
    if math.isinf(best_error):
        raise ValueError(
            "the mutation safe found no step that changes the Q-values on the states by a finite "
            "amount; they do not react to the weights, or are not finite themselves"
        )
    return best
