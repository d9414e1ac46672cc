"""Reports as Markdown and CSV, read back by the csv module and by eye."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.reports.table import csv_rows, csv_text
from engine.stages.reports.text import (
    HELD_OUT_ROWS,
    TRAINING_ROWS,
    UNKNOWN_ROWS,
    markdown,
    summary_markdown,
    write_csv,
    write_reports,
)
from engine.stages.validation.child import validate_child
from engine.stages.validation.quantized import validate_quantized
from engine.stages.validation.student import validate_student
from engine.stages.validation.timing import LatencySettings

SPEC = teacher_spec(8, 4, 16)
STATES = np.random.default_rng(3).standard_normal((50, 8)).astype(np.float32)
NO_TIMES = LatencySettings(0, 0)
RETURNS = {
    "environment": "CartPole-v1",
    "episodes": 100,
    "seed": 7,
    "interval": "95 % percentile bootstrap",
    "max_episode_steps": 500,
    "roles": {
        "child": {
            "mean": 424.25,
            "sem": 7.9,
            "ci95": [409.5, 439.0],
            "min": 130.0,
            "max": 500.0,
            "episodes": 100,
            "full_length_share": 0.38,
        },
        "student_A": {"mean": None, "reason": "student_A: network.0.weight holds NaN or infinity"},
    },
}


def network(seed: int) -> Network:
    return Network(SPEC, initial_weights(SPEC, seed))


def student_report(pair: str = "A") -> dict[str, Any]:
    report = validate_student(network(0), network(1), STATES, latency=NO_TIMES)
    report |= {"pair": pair, "checkpoints": {"parent": "p.pt", "student": "a|b, s.pt"}}
    return report


def child_report() -> dict[str, Any]:
    return validate_child(
        network(0), network(1), network(0), STATES, latency=NO_TIMES, include_parent_baseline=True
    )


def quantized_report() -> dict[str, Any]:
    return validate_quantized(network(0), network(0), STATES, latency=NO_TIMES, teacher=network(2))


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def cells(text: str, first: str) -> list[str]:
    """Return the cells of the one table row that begins with ``first``."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize("make", [student_report, child_report, quantized_report])
def test_every_check_is_a_row_with_value_limit_and_verdict(make: Any) -> None:
    report = make()
    checks = markdown("Title", report).split("## Metrics")[0]
    assert checks.startswith("# Title\n")
    assert len(report["checks"]) > 2
    for check in report["checks"]:
        value, limit, verdict = cells(checks, check["name"])
        assert float(value) == pytest.approx(check["value"], rel=1e-3)
        side = "at least" if check["kind"] == "min" else "at most"
        assert limit == f"{side} {check['limit']:g}"
        assert ("failed" in verdict) != check["passed"]


@pytest.mark.parametrize("make", [student_report, child_report, quantized_report])
def test_tables_are_well_formed(make: Any) -> None:
    text = markdown("Title", make() | {"returns": RETURNS})
    for block in re.split(r"\n\n", text):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1
    assert "nan" not in text.lower().replace("holds nan", "")


def test_verdict_stands_at_the_top() -> None:
    failed, passed = student_report(), quantized_report()
    assert f"**Did not pass**: {failed['reason']}." in markdown("x", failed)
    assert "**Passed**" in markdown("x", passed)


def test_child_has_a_column_for_each_comparison_and_a_summary() -> None:
    report = child_report()
    text = markdown("x", report).split("## Metrics")[1]
    assert cells(text, "metric") == list(report["comparisons"])
    shares = [float(cell) for cell in cells(text, "action_agreement")]
    assert shares == [c["action_agreement"] for c in report["comparisons"].values()]
    assert cells(text, "oracle_agreement") == ["1"]


@pytest.mark.parametrize("make", [student_report, child_report, quantized_report])
def test_what_was_not_measured_or_says_nothing_has_no_row(make: Any) -> None:
    report = make()
    text = markdown("x", report)
    for name in ("timed_batches", "batch_size", "latency_ratio", "reference_inference_ms"):
        assert f"| {name} |" not in text.split("## Metrics")[1]
    assert report["n_actions"] == 4
    assert "| top_k_agreements | 1: " in text or make is quantized_report
    two = report | {"n_actions": 2}  # of two actions, two are always right
    assert not re.search(r"top_k_agreements \|.* 2: ", markdown("x", two))
    assert re.search(r"top_k_agreements \|.* 3: ", text)


def test_returns_stand_with_their_intervals() -> None:
    text = markdown("x", student_report() | {"returns": RETURNS})
    assert cells(text, "child") == ["424.2", "[409.5, 439]", "130", "500", "0.38"]
    assert cells(text, "student_A")[-1] == RETURNS["roles"]["student_A"]["reason"]
    assert "100 episodes of CartPole-v1 each, the same for all (seed 7)" in text


def test_missing_returns_are_explained() -> None:
    unknown = {"environment": None, "reason": "the states are synthetic"}
    text = markdown("x", student_report() | {"returns": unknown})
    assert "No episode was played: the states are synthetic." in text


@pytest.mark.parametrize(
    ("held_out", "sentence"), [(True, HELD_OUT_ROWS), (False, TRAINING_ROWS), (None, UNKNOWN_ROWS)]
)
def test_states_say_whether_a_network_was_trained_on_them(
    held_out: bool | None, sentence: str
) -> None:
    report = student_report()
    report["states"] |= {"source": "states.npy", "held_out": held_out, "sha256": "0ff1ce"}
    text = markdown("x", report).split("## States")[1]
    assert sentence in text
    assert cells(text, "source") == ["states.npy"]
    assert cells(text, "sha256") == ["0ff1ce"]
    assert cells(text, "count") == ["50"]


def test_csv_has_one_row_per_comparison_in_full_precision() -> None:
    report = child_report() | {"returns": RETURNS, "model_paths": {"child": "c.pt"}}
    rows = read_csv(csv_text(csv_rows(report)))
    assert [row["comparison"] for row in rows] == list(report["comparisons"])
    for row in rows:
        comparison = report["comparisons"][row["comparison"]]
        for name in ("action_agreement", "kl_divergence", "mse", "centered_mse"):
            assert float(row[name]) == comparison[name]
        low, high = comparison["action_agreement_ci95"]
        assert float(row["action_agreement_low"]) == low
        assert float(row["action_agreement_high"]) == high
        assert json.loads(row["top_k_agreements_json"]) == comparison["top_k_agreements"]
        assert row["passed"] == str(comparison["passed"])
        assert row["overall_passed"] == str(report["passed"])
        assert row["child_ckpt"] == "c.pt"
        assert (row["return_child"], row["return_student_A"]) == ("424.25", "")
        assert row["reference_inference_ms"] == ""  # not measured


def test_csv_of_students_has_the_columns_of_agentfarm_and_a_row_per_pair(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", [student_report("A"), student_report("B")])
    rows = read_csv((tmp_path / "results.csv").read_text(encoding="utf-8"))
    assert [row["pair"] for row in rows] == ["A", "B"]
    assert rows[0]["student_ckpt"] == "a|b, s.pt"
    documented = (
        "pair parent_ckpt student_ckpt action_agreement kl_divergence mse mae "
        "mean_cosine_similarity param_ratio parent_inference_ms student_inference_ms latency_ratio "
        "top_k_agreements_json robustness_slice_agreements_json batch_validation_passed "
        "overall_passed"
    )
    assert set(documented.split()) <= rows[0].keys()


def test_columns_of_later_rows_are_kept() -> None:
    rows = [{"a": 1}, {"a": None, "b": float("nan"), "c": "x,\n"}]
    assert read_csv(csv_text(rows)) == [
        {"a": "1", "b": "", "c": ""},
        {"a": "", "b": "", "c": "x,\n"},
    ]


def test_reports_of_networks_without_numbers_can_be_written(tmp_path: Path) -> None:
    weights = initial_weights(SPEC, 0)
    weights["network.0.bias"][0] = np.inf
    bad = Network(SPEC, weights)
    reports = {
        "student": validate_student(network(0), bad, STATES),
        "quantized": validate_quantized(network(0), bad, STATES),
        "child": validate_child(network(0), network(1), bad, STATES),
    }
    for name, report in reports.items():
        write_reports(tmp_path / f"{name}.v1", "A report", report)
        for suffix in (".json", ".md", ".csv"):
            assert (tmp_path / f"{name}.v1{suffix}").stat().st_size > 100
        text = (tmp_path / f"{name}.v1.md").read_text(encoding="utf-8")
        assert f"{name}: network.0.bias holds NaN or infinity" in text


def test_summary_has_a_row_per_report() -> None:
    reports = {"pair A": student_report("A"), "pair B": student_report("B")}
    text = summary_markdown("Both", reports)
    share, _, verdict, reason = cells(text, "pair B")
    assert float(share) == reports["pair B"]["action_agreement"]
    assert verdict == "**failed**"
    assert reason == reports["pair B"]["reason"]
