"""Validation of a quantized network: what int8 costs in fidelity, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.stages.networks import Network
from engine.stages.validation.fidelity import compare
from engine.stages.validation.role_checks import all_q_values, check_roles, unusable
from engine.stages.validation.thresholds import QuantizationThresholds
from engine.stages.validation.timing import (
    RUNTIME,
    Latency,
    LatencySettings,
    ThroughputSettings,
    peak_resident_kilobytes,
    ratio,
    resident_bytes,
    throughputs,
)
from engine.stages.validation.verdicts import about_states, latencies_of, verdict_on


def validate_quantized(
    float_network: Network,
    quantized: Network,
    states: NDArray[np.float32],
    thresholds: QuantizationThresholds | None = None,
    k_values: Sequence[int] = (3,),
    latency: LatencySettings | None = None,
    throughput: ThroughputSettings | None = None,
    track_memory: bool = True,
    teacher: Network | None = None,
    checkpoint_bytes: tuple[int | None, int | None] = (None, None),
    quantization: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare a quantized network with its float original.

    Args:
        float_network: The original.
        quantized: The quantized network, dequantized.
        states: Held-out states, ``(N, n_inputs)``.
        thresholds: Limits; by default AgentFarm's. Where no latency is measured, that limit is off.
        k_values: Values of k of the top-k agreements; may be empty.
        latency: How latency is measured.
        throughput: How throughput is measured; by default not at all.
        track_memory: Whether the memory of the process is noted.
        teacher: What both imitate, if it is at hand.
        checkpoint_bytes: Sizes of the two files, float and quantized.
        quantization: ``mode``, ``backend`` and ``dtype`` from the sidecar of the quantized file.

    Returns:
        The report; see :func:`validate_student`.

    Raises:
        StageError: The networks or the states do not fit each other.
    """
    latency, throughput = latency or LatencySettings(), throughput or ThroughputSettings()
    thresholds = thresholds or QuantizationThresholds()
    if latency.repeats == 0:
        thresholds = replace(thresholds, max_latency_ratio=None)
    pair = {"float": float_network, "quantized": quantized}
    roles = pair if teacher is None else {**pair, "teacher": teacher}
    check_roles(roles, states)
    memory_before = resident_bytes() if track_memory else None
    values = all_q_values(roles, states)
    problem = unusable(roles, values)
    metrics = compare(values["float"], values["quantized"], k_values)
    times = latencies_of(pair, states, latency, problem)
    latency_ratio = ratio(times["quantized"], times["float"])
    speeds = throughputs(pair, states, throughput if problem is None else ThroughputSettings())
    float_bytes, quantized_bytes = checkpoint_bytes
    about = quantization or {}
    is_measured = throughput.batch_size > 0
    report: dict[str, Any] = {
        "fidelity": {
            **metrics,
            "n_states": len(states),
            "mse_logits": metrics["mse"],
            "kl_divergence_float_vs_quant": metrics["kl_divergence"],
        },
        "latency": {
            **_milliseconds("float", times["float"]),
            **_milliseconds("quantized", times["quantized"]),
            "latency_ratio": latency_ratio,
            "runtime": RUNTIME,
        },
        "throughput": {
            "batch_size": min(throughput.batch_size, len(states)),
            "float_batches_per_sec": speeds["float"],
            "quantized_batches_per_sec": speeds["quantized"],
            "warmup_batches": throughput.warmup_batches if is_measured else 0,
            "timed_batches": throughput.timed_batches if is_measured else 0,
        },
        "memory": {
            "rss_bytes_before": memory_before,
            "rss_bytes_after": resident_bytes() if track_memory else None,
            "process_peak_rss_kb": peak_resident_kilobytes() if track_memory else None,
        },
        "size": {
            "float_checkpoint_bytes": float_bytes,
            "quantized_checkpoint_bytes": quantized_bytes,
            "size_ratio": quantized_bytes / float_bytes
            if float_bytes and quantized_bytes
            else None,
        },
        "compatibility": {
            "compatible": unusable({"quantized": quantized}, values) is None,
            "pytorch_version": str(torch.__version__),
            **{f"quantization_{key}": about.get(key) for key in ("mode", "backend", "dtype")},
        },
        "states": about_states(states),
        "thresholds": thresholds.to_dict(),
        "n_actions": quantized.spec.n_actions,
    }
    if teacher is not None:
        report["fidelity_vs_teacher"] = _fidelity_to_teacher(values)
    checks = thresholds.checks({**metrics, "latency_ratio": latency_ratio})
    return {**report, **verdict_on(checks, problem)}


def _milliseconds(role: str, times: Latency) -> dict[str, float]:
    return {
        f"{role}_inference_ms": times.median_ms,
        f"{role}_inference_ms_mean": times.mean_ms,
        f"{role}_inference_ms_p95": times.p95_ms,
    }


def _fidelity_to_teacher(values: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Return how close both networks are to the teacher, so that the loss can be told apart."""
    to_float = compare(values["teacher"], values["float"], ())
    to_quantized = compare(values["teacher"], values["quantized"], ())
    return {
        "action_agreement_teacher_float": to_float["action_agreement"],
        "action_agreement_teacher_quant": to_quantized["action_agreement"],
        "kl_teacher_float_student": to_float["kl_divergence"],
        "kl_teacher_quant": to_quantized["kl_divergence"],
        "mse_teacher_float": to_float["mse"],
        "mse_teacher_quant": to_quantized["mse"],
    }
