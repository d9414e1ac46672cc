"""Validation of a child: how much of each of its parents it has kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.stages.networks import Network
from engine.stages.validation.fidelity import compare, wilson_interval
from engine.stages.validation.role_checks import all_q_values, check_roles, unusable
from engine.stages.validation.thresholds import RecombinationThresholds
from engine.stages.validation.timing import RUNTIME, Latency, LatencySettings
from engine.stages.validation.verdicts import about_states, latencies_of, verdict_on

SCHEMA_VERSION = "1.1"
"""AgentFarm's schema, whose keys are all there; more keys may come."""


def validate_child(
    parent_a: Network,
    parent_b: Network,
    child: Network,
    states: NDArray[np.float32],
    thresholds: RecombinationThresholds | None = None,
    k_values: Sequence[int] = (1, 2, 3),
    latency: LatencySettings | None = None,
    include_parent_baseline: bool = False,
) -> dict[str, Any]:
    """Compare a child with both of its parents.

    Agreement with a parent says little by itself: two parents that agree on 90 % of all states
    leave a copy of A agreeing with B on 90 %. Hence ``summary`` has beside each agreement its
    gain over the agreement of the parents with each other, and ``best_min_agreement``, the most
    that the smaller of the two can be: a child can follow A in one half of the states in which
    the parents differ, and B in the other.

    Args:
        parent_a: The first parent, of any width.
        parent_b: The second parent, of any width.
        child: The child, of any width.
        states: Held-out states, ``(N, n_inputs)``.
        thresholds: Limits that hold against each parent; by default AgentFarm's.
        k_values: Values of k of the top-k agreements.
        latency: How latency is measured.
        include_parent_baseline: Whether ``comparisons`` holds parent A against parent B, too;
            that comparison is for information and has no limits.

    Returns:
        The report, its keys as in :func:`engine.stages.validation.student.validate_student`.
        ``model_paths`` and ``model_formats`` are left to be filled.

    Raises:
        StageError: The networks or the states do not fit each other.
    """
    thresholds, latency = thresholds or RecombinationThresholds(), latency or LatencySettings()
    roles = {"parent_a": parent_a, "parent_b": parent_b, "child": child}
    check_roles(roles, states)
    values = all_q_values(roles, states)
    problem = unusable(roles, values)
    times = latencies_of(roles, states, latency, problem)
    comparisons, checks = {}, []
    for reference in ("parent_a", "parent_b"):
        label = f"child_vs_{reference}"
        comparison = _comparison(label, reference, "child", values, times, k_values)
        own_checks = thresholds.checks(comparison, prefix=f"{label}.")
        comparison["passed"] = all(check.passed for check in own_checks)
        comparisons[label] = comparison
        checks += own_checks
    baseline = _comparison("parent_a_vs_parent_b", "parent_a", "parent_b", values, times, k_values)
    if include_parent_baseline:
        comparisons["parent_a_vs_parent_b"] = {**baseline, "passed": True}  # it has no limits
    with_a, with_b = (
        comparisons[f"child_vs_{parent}"]["action_agreement"] for parent in ("parent_a", "parent_b")
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "torch_version": str(torch.__version__),
        "states": about_states(states),
        "n_actions": child.spec.n_actions,
        "model_paths": {},
        "model_formats": {},
        "comparisons": comparisons,
        "summary": _summary(with_a, with_b, baseline["action_agreement"], values, problem),
        "runtime": RUNTIME,
        "thresholds": thresholds.to_dict(),
        **verdict_on(checks, problem),
    }


def oracle_agreement(
    a: NDArray[np.floating], b: NDArray[np.floating], child: NDArray[np.floating]
) -> float:
    """Return the share of states in which the child does what A or B would do.

    Args:
        a: Q-values of the first parent, ``(N, n_actions)``.
        b: Q-values of the second parent.
        child: Q-values of the child.
    """
    actions = child.argmax(axis=1)
    return float(((actions == a.argmax(axis=1)) | (actions == b.argmax(axis=1))).mean())


def _comparison(
    label: str,
    reference: str,
    query: str,
    values: Mapping[str, NDArray[np.float32]],
    times: Mapping[str, Latency],
    k_values: Sequence[int],
) -> dict[str, Any]:
    return {
        "label": label,
        **compare(values[reference], values[query], k_values),
        "reference_inference_ms": times[reference].median_ms,
        "query_inference_ms": times[query].median_ms,
    }


def _summary(
    with_a: float,
    with_b: float,
    between_parents: float,
    values: Mapping[str, NDArray[np.float32]],
    problem: str | None,
) -> dict[str, Any]:
    n_states = len(values["child"])
    oracle = float("nan")
    if problem is None:
        oracle = oracle_agreement(values["parent_a"], values["parent_b"], values["child"])
    return {
        "child_agrees_with_parent_a": with_a,
        "child_agrees_with_parent_b": with_b,
        "oracle_agreement": oracle,
        "oracle_agreement_ci95": wilson_interval(oracle, n_states),
        "parents_agree": between_parents,
        "gain_over_parents_a": with_a - between_parents,
        "gain_over_parents_b": with_b - between_parents,
        "min_agreement": float(np.minimum(with_a, with_b)),
        "min_agreement_gain": float(np.minimum(with_a, with_b)) - between_parents,
        "best_min_agreement": between_parents + (1 - between_parents) / 2,
    }
