"""Validation of a student: how much of its teacher it has kept, and at what size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StageError
from engine.stages.networks import Network
from engine.stages.validation.fidelity import compare, label_metrics
from engine.stages.validation.role_checks import all_q_values, check_roles, unusable
from engine.stages.validation.thresholds import DistillationThresholds
from engine.stages.validation.timing import RUNTIME, LatencySettings, ratio
from engine.stages.validation.verdicts import about_states, latencies_of, verdict_on

NOISE = 0.25
"""Standard deviation of what ``high_threat`` adds to every input."""


def validate_student(
    teacher: Network,
    student: Network,
    states: NDArray[np.float32],
    thresholds: DistillationThresholds | None = None,
    k_values: Sequence[int] = (1, 2, 3),
    robustness: bool = True,
    latency: LatencySettings | None = None,
    seed: int = 0,
    labels: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Compare a student with its teacher.

    Args:
        teacher: What the student was trained to imitate.
        student: The student, of any width.
        states: Held-out states, ``(N, n_inputs)``.
        thresholds: Limits; by default AgentFarm's.
        k_values: Values of k of the top-k agreements.
        robustness: Whether the agreement on :func:`robustness_slices` is measured, too.
        latency: How latency is measured.
        seed: Of the robustness slices.
        labels: The right action of each state, ``(N,)``, where it is known.

    Returns:
        The report. ``passed`` is whether all ``checks`` did; ``failed`` names those that did not,
        and ``reason`` says so in words, None for a report that passed.

    Raises:
        StageError: The networks or the states do not fit each other, the labels are no actions, or
            a limit asks for something that is not measured.
    """
    thresholds, latency = thresholds or DistillationThresholds(), latency or LatencySettings()
    if thresholds.min_robustness_action_agreement is not None and not robustness:
        raise StageError(
            "--min-robustness-action-agreement needs the robustness slices; "
            "leave out --disable-robustness-slices"
        )
    if thresholds.max_latency_ratio is not None and latency.repeats == 0:
        raise StageError("--max-latency-ratio needs --latency-repeats of at least 1, not 0")
    roles = {"teacher": teacher, "student": student}
    check_roles(roles, states)
    values = all_q_values(roles, states)
    problem = unusable(roles, values)
    metrics = compare(values["teacher"], values["student"], k_values)
    slices = _slice_agreements(roles, states, seed) if robustness else {}
    times = latencies_of(roles, states, latency, problem)
    metrics |= {
        "parent_param_count": teacher.n_parameters,
        "student_param_count": student.n_parameters,
        "param_ratio": student.n_parameters / teacher.n_parameters,
        "parent_inference_ms": times["teacher"].median_ms,
        "student_inference_ms": times["student"].median_ms,
        "latency_ratio": ratio(times["student"], times["teacher"]),
        "robustness_slice_agreements": slices,
    }
    weakest = (
        {"robustness_action_agreement": float(np.min(list(slices.values())))} if slices else {}
    )
    verdict = verdict_on(thresholds.checks(metrics | weakest), problem)
    right = None
    if labels is not None and problem is None:
        right = label_metrics(labels, values["student"].argmax(axis=1), student.spec.n_actions)
    return {
        **metrics,
        "label_metrics": right,
        "n_actions": student.spec.n_actions,
        "states": about_states(states),
        "runtime": RUNTIME,
        "thresholds": thresholds.to_dict(),
        "batch_validation_passed": verdict["passed"],
        **verdict,
    }


def robustness_slices(states: NDArray[np.float32], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return states as they might look elsewhere, by name, each of the shape of ``states``.

    ``low_resource`` halves all inputs, ``high_threat`` adds normal noise to each, ``sparse_obs``
    sets each to zero with probability one half. They are AgentFarm's, to the number.
    """
    rng = np.random.default_rng(seed)
    noise = NOISE * rng.standard_normal(states.shape)
    is_kept = rng.random(states.shape) > 0.5
    return {
        "low_resource": (states * 0.5).astype(np.float32),
        "high_threat": (states + noise).astype(np.float32),
        "sparse_obs": (states * is_kept).astype(np.float32),
    }


def _slice_agreements(
    roles: Mapping[str, Network], states: NDArray[np.float32], seed: int
) -> dict[str, float]:
    """Return the share of states of each slice in which student and teacher agree."""
    agreements = {}
    for name, rows in robustness_slices(states, seed).items():
        values = all_q_values(roles, rows)
        agreements[name] = float(compare(values["teacher"], values["student"])["action_agreement"])
    return agreements
