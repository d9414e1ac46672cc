"""The metrics of a validator's report as rows, for CSV and for the tables of the text."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.stages.reports.files import plain
from engine.stages.validation.fidelity import METRICS

STUDENT_METRICS = (
    *METRICS,
    "param_ratio",
    "parent_param_count",
    "student_param_count",
    "parent_inference_ms",
    "student_inference_ms",
    "latency_ratio",
    "robustness_slice_agreements",
)
COMPARISON_METRICS = (*METRICS, "reference_inference_ms", "query_inference_ms")
QUANTIZED_SECTIONS = ("fidelity", "latency", "throughput", "memory", "size")
_SAME_UNDER_ANOTHER_NAME = ("mse_logits", "kl_divergence_float_vs_quant", "runtime")


def comparisons(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of every comparison of a report, by its label.

    Args:
        report: Of any of the validators. Those of a student and of a quantized network are one
            comparison, ``student_vs_teacher`` and ``quantized_vs_float``.
    """
    if "comparisons" in report:
        return {
            label: {name: comparison[name] for name in COMPARISON_METRICS}
            for label, comparison in report["comparisons"].items()
        }
    if "fidelity" in report:
        joined = {
            name: value for section in QUANTIZED_SECTIONS for name, value in report[section].items()
        }
        for name in _SAME_UNDER_ANOTHER_NAME:
            del joined[name]
        return {"quantized_vs_float": joined | report.get("fidelity_vs_teacher", {})}
    return {"student_vs_teacher": {name: report[name] for name in STUDENT_METRICS}}


def csv_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per comparison of a report.

    A metric by name (top-k agreements, robustness slices) becomes one column ``<metric>_json``, an
    interval two, ``<metric>_low`` and ``<metric>_high``. After the metrics come source and kind of
    the states, the mean return of each role with its interval, and the verdict.
    """
    paths = report.get("checkpoints") or report.get("model_paths") or {}
    first = {"pair": report.get("pair"), **{f"{role}_ckpt": path for role, path in paths.items()}}
    states = report.get("states", {})
    verdict = {
        "passed": report["passed"] if "comparisons" not in report else None,
        "overall_passed": report["passed"],
        "reason": report["reason"],
    }
    if "batch_validation_passed" in report:
        verdict["batch_validation_passed"] = report["batch_validation_passed"]
    last = {f"states_{name}": states.get(name) for name in ("source", "n_states", "held_out")}
    for role, played in ((report.get("returns") or {}).get("roles") or {}).items():
        last[f"return_{role}"] = played["mean"]
        last |= _columns(f"return_{role}", played.get("ci95"))
    rows = []
    for label, metrics in comparisons(report).items():
        row = {**first, "comparison": label}
        for name, value in metrics.items():
            row |= _columns(name.removesuffix("_ci95"), value)
        row |= last | verdict
        if "comparisons" in report:
            row["passed"] = report["comparisons"][label]["passed"]
        rows.append(row)
    return rows


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header; an empty cell is what is missing, None or not finite.

    The columns are those of all rows, in the order in which they first come up.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def is_known(value: object) -> bool:
    """Tell whether a value is there: not None, and no NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _columns(name: str, value: Any) -> dict[str, Any]:
    """Return the columns of one metric."""
    if isinstance(value, Mapping):
        return {f"{name}_json": json.dumps(plain(value))}
    if isinstance(value, Iterable) and not isinstance(value, str):
        low, high = value
        return {f"{name}_low": low, f"{name}_high": high}
    return {name: value}


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
