"""What a network imitates, and how it gets back the scale that imitating does not teach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.learning.course import Course
from engine.learning.repair import refit_common_value, refit_output
from engine.learning.targets import targets as advantages
from engine.learning.training import train
from engine.stages.imitation.config import Calibration, ImitationConfig
from engine.stages.networks import Network
from populations.network import NetworkSpec, Weights

# As in breeding; see LearningConfig.ridge.
RIDGE = 1e-3
# How much the validation loss of an int8 network may rise for values on the references' scale.
INT8_TOLERANCE = 1.05


class Goal:
    """What one network imitates, in the units in which it trains.

    Args:
        references: Networks to imitate, R of them.
        shares: Share of each, not negative.
        config: How the network learns.
        states: Float32 of shape ``(N, n_inputs)``.

    Attributes:
        targets: Values whose softmax is imitated, or that are fitted, float32 ``(N, A)``.
        wanted: Values on the scale of the references, in units of training, float32 ``(N, A)``.
        unit: What values are divided by while training; 1 unless they are normalized.
    """

    def __init__(
        self,
        references: Sequence[Network],
        shares: Sequence[float],
        config: ImitationConfig,
        states: NDArray[np.float32],
    ) -> None:
        parts = [np.float32(share / sum(shares)) for share in shares]
        values = np.stack([reference.q_values(states) for reference in references])  # (R, N, A)
        self.unit = np.float32(1)
        imitated = values
        if config.normalise_q:
            imitated, scales = advantages(values, "advantages")
            self.unit = np.float32(np.dot(parts, scales))
        self.wanted = _mean(values, parts) / self.unit
        if len(values) == 1 or config.loss_fn == "mse":
            self.targets = _mean(imitated, parts)
        else:
            self.targets = mixture(imitated, parts, config.temperature)

    def scaled(self, weights: Weights) -> dict[str, NDArray[np.float32]]:
        """Return a network whose values are in units of training."""
        return _output_times(weights, 1 / self.unit)

    def unscaled(self, weights: Weights) -> dict[str, NDArray[np.float32]]:
        """Return a network whose values are on the scale of the references."""
        return _output_times(weights, self.unit)


def mixture(
    values: NDArray[np.float32], shares: Sequence[np.float32], temperature: float
) -> NDArray[np.float32]:
    """Return values ``(N, A)`` whose softmax is the mean of the softmaxes of several networks.

    The weighted sum of the KL divergences from R networks has the gradient of the KL divergence
    from the mean of their probabilities, so one target does for all of them.

    Args:
        values: Q-values ``(R, N, A)``.
        shares: Share of each network, together 1.
        temperature: Temperature of all softmaxes.
    """
    logits = values.astype(np.float64) / temperature
    logits -= np.logaddexp.reduce(logits, axis=2, keepdims=True)
    # A network without a share must not turn log 0 into NaN.
    terms = [row + math.log(share) for row, share in zip(logits, shares, strict=True) if share > 0]
    mixed: NDArray[np.float32] = (temperature * np.logaddexp.reduce(terms)).astype(np.float32)
    return mixed


def _mean(values: NDArray[np.float32], shares: Sequence[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = sum(
        (share * row for share, row in zip(shares, values, strict=True)), np.zeros_like(values[0])
    )
    return mean


def calibrate(
    spec: NetworkSpec,
    trained: Weights,
    wanted: NDArray[np.float32],
    lesson: Course,
    calibration: Calibration,
) -> tuple[Weights, Calibration]:
    """Refit a trained network to the scale of its references, in closed form.

    Args:
        spec: Architecture of the network.
        trained: The network, in units of training.
        wanted: Values of its references on the training states in these units, ``(N, A)``.
        lesson: The course it was trained on, of this network alone.
        calibration: What to refit; see ``ImitationConfig``.

    Returns:
        The network, and what was refitted.
    """
    states, lesson = lesson.train_states, replace(lesson, steps=0, record=False)
    loss = train(spec, [trained], lesson).loss[0]
    if calibration == "none" or not np.isfinite(loss):
        return trained, "none"
    if calibration == "output":
        by_action = np.ascontiguousarray(wanted.T[None])
        refitted = refit_output(spec, [trained], states, by_action, RIDGE)[0]
        if train(spec, [refitted], lesson).loss[0] < loss:
            return refitted, "output"
    refitted = refit_common_value(spec, trained, states, wanted.mean(axis=1), RIDGE)
    # Rows with a large common part are rounded coarsely; the preferences matter more.
    if lesson.int8_in_loop and train(spec, [refitted], lesson).loss[0] > INT8_TOLERANCE * loss:
        return trained, "none"
    return refitted, "value"


def _output_times(weights: Weights, factor: np.float32) -> dict[str, NDArray[np.float32]]:
    """Return the network with its Q-values multiplied by ``factor``."""
    *_, weight, bias = weights
    scaled = {name: tensor.copy() for name, tensor in weights.items()}
    if factor != 1:
        for name in (weight, bias):
            scaled[name] *= factor
    return scaled
