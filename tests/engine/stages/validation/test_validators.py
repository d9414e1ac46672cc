"""The validators: keys of AgentFarm's reports, laws, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from engine.errors import StageError
from engine.stages.networks import Network, initial_weights, student_spec, teacher_spec
from engine.stages.reports.files import write_json
from engine.stages.validation.child import oracle_agreement, validate_child
from engine.stages.validation.quantized import validate_quantized
from engine.stages.validation.student import robustness_slices, validate_student
from engine.stages.validation.thresholds import (
    DistillationThresholds,
    QuantizationThresholds,
    RecombinationThresholds,
)
from engine.stages.validation.timing import LatencySettings, ThroughputSettings
from populations.genome import Genome, Lineage

TEACHER = teacher_spec(8, 4, 64)
NO_TIMES = LatencySettings(0, 0)
FEW_TIMES = LatencySettings(1, 3)
STATES = np.random.default_rng(3).standard_normal((300, 8)).astype(np.float32)

Validator = Callable[[Network, Network], dict[str, Any]]


def teacher(seed: int) -> Network:
    return Network(TEACHER, initial_weights(TEACHER, seed))


def student(seed: int) -> Network:
    spec = student_spec(TEACHER)
    return Network(spec, initial_weights(spec, seed))


def with_nan(network: Network, tensor: str) -> Network:
    weights = {name: values.copy() for name, values in network.weights.items()}
    weights[tensor].flat[0] = np.nan
    return Network(network.spec, weights)


def torch_values(network: Network, states: np.ndarray) -> torch.Tensor:
    """Return Q-values of the two-hidden-layer network, by torch's own modules."""
    w = {name: torch.from_numpy(np.array(values)) for name, values in network.weights.items()}
    x = torch.from_numpy(states)
    for linear, norm in (("network.0", "network.1"), ("network.4", "network.5")):
        x = F.linear(x, w[f"{linear}.weight"], w[f"{linear}.bias"])
        x = F.layer_norm(x, x.shape[1:], w[f"{norm}.weight"], w[f"{norm}.bias"]).relu()
    return F.linear(x, w["network.8.weight"], w["network.8.bias"])


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.argmax(1) == b.argmax(1)).double().mean())


def test_student_report_has_the_numbers_of_torch_under_agentfarms_keys() -> None:
    a, b = teacher(0), student(1)
    report = validate_student(a, b, STATES, latency=FEW_TIMES, seed=42)
    p, q = torch_values(a, STATES), torch_values(b, STATES)
    assert report["action_agreement"] == agreement(p, q)
    assert report["mse"] == pytest.approx(float(F.mse_loss(q, p)), rel=1e-5)
    divergence = F.kl_div(F.log_softmax(q, 1), F.softmax(p, 1), reduction="batchmean")
    assert report["kl_divergence"] == pytest.approx(float(divergence), rel=1e-4)
    assert (report["parent_param_count"], report["student_param_count"]) == (5252, 1604)
    assert report["param_ratio"] == pytest.approx(0.3054, abs=5e-5)
    assert report["latency_ratio"] == report["student_inference_ms"] / report["parent_inference_ms"]
    slices = robustness_slices(STATES, 42)
    assert report["robustness_slice_agreements"] == {
        name: agreement(torch_values(a, rows), torch_values(b, rows))
        for name, rows in slices.items()
    }
    documented = (
        "action_agreement top_k_agreements kl_divergence mse mae mean_cosine_similarity "
        "parent_param_count student_param_count param_ratio parent_inference_ms "
        "student_inference_ms latency_ratio robustness_slice_agreements passed label_metrics "
        "thresholds batch_validation_passed states"
    )
    assert set(documented.split()) <= report.keys()
    assert report["states"] == {"count": 300, "n_states": 300, "input_dim": 8}
    assert report["label_metrics"] is None
    assert report["passed"] is False
    assert report["failed"] == ["action_agreement", "mean_cosine_similarity"]
    assert report["reason"].startswith(f"action_agreement is {report['action_agreement']:.6g}, be")


def test_robustness_slices_are_those_of_agentfarm() -> None:
    rng = np.random.default_rng(42)
    noise, uniform = rng.standard_normal(STATES.shape), rng.random(STATES.shape)
    slices = robustness_slices(STATES, 42)
    np.testing.assert_array_equal(slices["low_resource"], STATES / 2)
    np.testing.assert_allclose(slices["high_threat"], STATES + noise / 4, atol=1e-6)
    np.testing.assert_array_equal(slices["sparse_obs"], np.where(uniform > 0.5, STATES, 0))
    assert {rows.dtype for rows in slices.values()} == {np.dtype(np.float32)}


def test_student_that_is_its_teacher_passes_all_but_the_size() -> None:
    a = teacher(0)
    report = validate_student(a, a, STATES, latency=NO_TIMES)
    assert report["failed"] == ["param_ratio"]
    assert report["reason"] == "param_ratio is 1, above 0.9"
    limits = DistillationThresholds(max_param_ratio=1.0, min_robustness_action_agreement=1.0)
    report = validate_student(a, a, STATES, limits, latency=NO_TIMES)
    assert report["passed"] is True
    assert report["reason"] is None
    assert report["failed"] == []


def test_weakest_slice_decides_on_robustness() -> None:
    a, b = teacher(0), student(1)
    slices = validate_student(a, b, STATES, latency=NO_TIMES)["robustness_slice_agreements"]
    assert len(set(slices.values())) > 1
    for limit, passed in ((min(slices.values()), True), (max(slices.values()), False)):
        thresholds = DistillationThresholds(min_robustness_action_agreement=limit)
        report = validate_student(a, b, STATES, thresholds, latency=NO_TIMES)
        assert ("robustness_action_agreement" not in report["failed"]) == passed


def test_labels_are_held_against_the_students_actions() -> None:
    a, b = teacher(0), student(1)
    labels = torch_values(b, STATES).argmax(1).numpy()
    report = validate_student(a, b, STATES, latency=NO_TIMES, labels=labels)
    assert report["label_metrics"]["accuracy"] == 1
    assert report["label_metrics"]["n_classes"] == 4


def test_report_without_times_is_the_same_again() -> None:
    runs = [validate_student(teacher(0), student(1), STATES, latency=NO_TIMES) for _ in range(2)]
    np.testing.assert_equal(*runs)
    assert np.isnan(runs[0]["latency_ratio"])


@pytest.mark.parametrize(
    ("thresholds", "settings", "message"),
    [
        ({"max_latency_ratio": 1.0}, {"latency": NO_TIMES}, "needs --latency-repeats of at least"),
        (
            {"min_robustness_action_agreement": 0.5},
            {"robustness": False},
            "leave out --disable-robustness-slices",
        ),
    ],
)
def test_limit_on_what_is_not_measured_is_refused(
    thresholds: dict[str, float], settings: dict[str, Any], message: str
) -> None:
    limits = DistillationThresholds(**thresholds)
    with pytest.raises(StageError, match=message):
        validate_student(teacher(0), student(1), STATES, limits, **settings)


def test_quantized_report_has_agentfarms_keys_and_is_close_to_the_float_network() -> None:
    network = student(1)
    genome = Genome.from_weights(network.spec, network.weights, Lineage("student", 0, 0))
    quantized = Network(network.spec, genome.to_weights())
    report = validate_quantized(
        network,
        quantized,
        STATES,
        latency=FEW_TIMES,
        throughput=ThroughputSettings(batch_size=500, timed_batches=2),
        teacher=teacher(0),
        checkpoint_bytes=(8000, 4000),
        quantization={"mode": "dynamic", "backend": "none", "dtype": "qint8"},
    )
    documented = {
        "fidelity": "action_agreement mean_q_error max_q_error mean_cosine_similarity n_states "
        "mse_logits kl_divergence_float_vs_quant top_k_agreements",
        "latency": "float_inference_ms float_inference_ms_mean float_inference_ms_p95 "
        "quantized_inference_ms quantized_inference_ms_mean quantized_inference_ms_p95 "
        "latency_ratio runtime",
        "throughput": "batch_size float_batches_per_sec quantized_batches_per_sec "
        "warmup_batches timed_batches",
        "memory": "rss_bytes_before rss_bytes_after process_peak_rss_kb",
        "size": "float_checkpoint_bytes quantized_checkpoint_bytes size_ratio",
        "compatibility": "compatible pytorch_version quantization_mode quantization_backend "
        "quantization_dtype",
        "thresholds": "min_action_agreement max_mean_q_error min_cosine_similarity "
        "max_latency_ratio report_only",
        "fidelity_vs_teacher": "action_agreement_teacher_float action_agreement_teacher_quant "
        "kl_teacher_float_student kl_teacher_quant mse_teacher_float mse_teacher_quant",
    }
    for section, keys in documented.items():
        assert set(keys.split()) <= report[section].keys(), section
    p, q = torch_values(network, STATES), torch_values(quantized, STATES)
    fidelity, to_teacher = report["fidelity"], report["fidelity_vs_teacher"]
    assert fidelity["mean_q_error"] == pytest.approx(float((p - q).abs().mean()), rel=1e-3)
    assert fidelity["mse_logits"] == pytest.approx(float(F.mse_loss(p, q)), rel=1e-3)
    assert fidelity["top_k_agreements"].keys() == {"3"}
    t = torch_values(teacher(0), STATES)
    assert to_teacher["action_agreement_teacher_quant"] == agreement(t, q)
    assert to_teacher["mse_teacher_float"] == pytest.approx(float(F.mse_loss(p, t)), rel=1e-5)
    assert report["size"]["size_ratio"] == 0.5
    assert report["throughput"]["batch_size"] == 300  # there are no more states
    assert report["compatibility"]["compatible"] is True
    assert report["compatibility"]["quantization_mode"] == "dynamic"


def test_quantized_network_that_is_the_float_one_passes_without_times() -> None:
    a = student(0)
    report = validate_quantized(a, a, STATES, latency=NO_TIMES, track_memory=False)
    assert report["passed"] is True
    assert "latency_ratio" not in [check["name"] for check in report["checks"]]
    assert report["memory"] == dict.fromkeys(report["memory"])
    assert report["size"]["size_ratio"] is None
    assert "fidelity_vs_teacher" not in report


def test_report_only_is_recorded_and_changes_no_verdict() -> None:
    limits = QuantizationThresholds(report_only=True)
    report = validate_quantized(student(0), student(1), STATES, limits, latency=NO_TIMES)
    assert report["thresholds"]["report_only"] is True
    assert report["passed"] is False


def test_child_report_compares_roles_of_different_widths_as_torch_does() -> None:
    a, b, child = teacher(0), teacher(1), student(2)
    report = validate_child(a, b, child, STATES, latency=FEW_TIMES, include_parent_baseline=True)
    p, q, c = (torch_values(network, STATES) for network in (a, b, child))
    with_a, with_b, parents = agreement(p, c), agreement(q, c), agreement(p, q)
    comparisons, summary = report["comparisons"], report["summary"]
    assert list(comparisons) == ["child_vs_parent_a", "child_vs_parent_b", "parent_a_vs_parent_b"]
    for label, pair in zip(comparisons, ((p, c), (q, c), (p, q)), strict=True):
        comparison = comparisons[label]
        assert comparison["label"] == label
        assert comparison["action_agreement"] == agreement(*pair)
        assert comparison["mae"] == pytest.approx(float(F.l1_loss(*pair)), rel=1e-5)
        assert comparison["reference_inference_ms"] > 0
        assert comparison["query_inference_ms"] > 0
    chosen = [values.argmax(1) for values in (p, q, c)]
    oracle = ((chosen[2] == chosen[0]) | (chosen[2] == chosen[1])).double().mean()
    assert summary["oracle_agreement"] == pytest.approx(float(oracle))
    assert summary["child_agrees_with_parent_a"] == with_a
    assert summary["child_agrees_with_parent_b"] == with_b
    assert summary["gain_over_parents_a"] == pytest.approx(with_a - parents)
    assert summary["gain_over_parents_b"] == pytest.approx(with_b - parents)
    assert summary["min_agreement_gain"] == pytest.approx(min(with_a, with_b) - parents)
    assert summary["best_min_agreement"] == pytest.approx((1 + parents) / 2)
    assert report["schema_version"] == "1.1"
    assert report["torch_version"] == torch.__version__
    assert report["model_paths"] == report["model_formats"] == {}
    assert report["passed"] is False


def test_parent_baseline_is_left_out_unless_asked_for() -> None:
    report = validate_child(teacher(0), teacher(1), teacher(2), STATES, latency=NO_TIMES)
    assert list(report["comparisons"]) == ["child_vs_parent_a", "child_vs_parent_b"]
    assert report["summary"]["parents_agree"] > 0


def test_both_parents_count() -> None:
    a, b = teacher(0), teacher(1)
    report = validate_child(a, b, a, STATES, latency=NO_TIMES, include_parent_baseline=True)
    comparisons = report["comparisons"]
    assert comparisons["child_vs_parent_a"]["passed"] is True
    assert comparisons["child_vs_parent_b"]["passed"] is False
    assert report["passed"] is False
    assert set(report["failed"]) == {
        "child_vs_parent_b.action_agreement",
        "child_vs_parent_b.mean_cosine_similarity",
    }
    assert report["summary"]["oracle_agreement"] == 1
    assert report["summary"]["min_agreement_gain"] == 0  # a copy of A gains nothing
    lenient = RecombinationThresholds(0.0, 100.0, 100.0, -1.0)
    assert validate_child(a, b, a, STATES, lenient, latency=NO_TIMES)["passed"] is True


def test_oracle_takes_the_action_of_either_parent() -> None:
    a, b = np.float32([[1, 0, 0], [1, 0, 0], [1, 0, 0]]), np.float32([[0, 1, 0]] * 3)
    child = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert oracle_agreement(a, b, child) == pytest.approx(2 / 3)


VALIDATORS: dict[str, tuple[tuple[str, ...], Validator]] = {
    "student": (
        ("teacher", "student"),
        lambda good, bad: validate_student(good, bad, STATES),
    ),
    "quantized": (
        ("float", "quantized"),
        lambda good, bad: validate_quantized(
            good, bad, STATES, throughput=ThroughputSettings(batch_size=8)
        ),
    ),
    "quantized teacher": (
        ("float", "teacher"),
        lambda good, bad: validate_quantized(good, good, STATES, teacher=bad),
    ),
    "child": (
        ("parent_a", "child"),
        lambda good, bad: validate_child(good, good, bad, STATES, include_parent_baseline=True),
    ),
    "parent": (
        ("parent_a", "parent_b"),
        lambda good, bad: validate_child(good, bad, good, STATES),
    ),
}


@pytest.mark.parametrize("case", VALIDATORS)
@pytest.mark.parametrize("tensor", ["network.0.weight", "network.5.bias", "network.8.bias"])
def test_network_with_nan_does_not_pass_and_the_report_is_valid_json(
    case: str, tensor: str, tmp_path: Path
) -> None:
    (_, name), validate = VALIDATORS[case]
    report = validate(teacher(0), with_nan(teacher(0), tensor))
    assert report["passed"] is False
    assert report["reason"] == f"{name}: {tensor} holds NaN or infinity"
    write_json(tmp_path / "report.json", report)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    again = json.loads(text, parse_constant=refuse)
    assert again.keys() == report.keys()


def test_weights_that_overflow_do_not_pass() -> None:
    network = teacher(0)
    weights = dict(network.weights)
    weights["network.8.weight"] = np.full((4, 64), 3e38, np.float32)
    report = validate_quantized(network, Network(TEACHER, weights), STATES)
    assert report["reason"] == "quantized: its Q-values overflow, its weights are too large"
    assert report["compatibility"]["compatible"] is False


@pytest.mark.parametrize("case", VALIDATORS)
def test_networks_of_two_tasks_are_refused(case: str) -> None:
    (first, second), validate = VALIDATORS[case]
    other = teacher_spec(4, 2, 64)
    with pytest.raises(
        StageError,
        match=f"{first} has 8 inputs and 4 actions, but {second} has 4 inputs and 2 actions; "
        "give networks of one task",
    ):
        validate(teacher(0), Network(other, initial_weights(other, 0)))


@pytest.mark.parametrize("shape", [(0, 8), (5, 4), (8,), (1, 1, 8)])
def test_states_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(StageError, match=r"at least one state of 8 numbers.*\(N, 8\), not"):
        validate_student(teacher(0), student(0), np.zeros(shape, np.float32))


def test_states_with_nan_are_refused() -> None:
    states = STATES.copy()
    states[5, 2] = np.nan
    with pytest.raises(StageError, match="the states hold NaN or infinity"):
        validate_student(teacher(0), student(0), states)


def test_one_state_is_enough() -> None:
    report = validate_student(teacher(0), student(0), STATES[:1], latency=NO_TIMES)
    assert report["states"]["count"] == 1
    low, high = report["action_agreement_ci95"]
    assert high - low > 0.7  # and says next to nothing
