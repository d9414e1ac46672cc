"""Limits: their defaults, their ranges, and when they are kept."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from engine.errors import StageError
from engine.stages.validation.thresholds import (
    Check,
    DistillationThresholds,
    QuantizationThresholds,
    RecombinationThresholds,
    Thresholds,
)

# What AgentFarm's validators ask for by default.
DEFAULTS = {
    DistillationThresholds: {
        "min_action_agreement": 0.85,
        "max_kl_divergence": 0.5,
        "max_mse": 2.0,
        "min_cosine_similarity": 0.8,
        "max_param_ratio": 0.9,
        "max_mae": None,
        "max_latency_ratio": None,
        "min_robustness_action_agreement": None,
    },
    QuantizationThresholds: {
        "min_action_agreement": 0.75,
        "max_mean_q_error": 0.5,
        "min_cosine_similarity": 0.75,
        "max_latency_ratio": 2.0,
        "report_only": False,
    },
    RecombinationThresholds: {
        "min_action_agreement": 0.70,
        "max_kl_divergence": 1.0,
        "max_mse": 5.0,
        "min_cosine_similarity": 0.70,
        "report_only": False,
    },
}
METRIC_OF = {"min_cosine_similarity": "mean_cosine_similarity", "max_mse": "centered_mse"}
KINDS = list(DEFAULTS)


def metric_of(limit: str) -> str:
    return METRIC_OF.get(limit, limit.removeprefix("min_").removeprefix("max_"))


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_those_of_agentfarm(kind: type[Thresholds]) -> None:
    assert kind().to_dict() == DEFAULTS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_limit_that_is_set_is_checked_on_its_metric(kind: type[Thresholds]) -> None:
    limits = {name: limit for name, limit in DEFAULTS[kind].items() if name != "report_only"}
    thresholds = kind(**{name: limit or 0.5 for name, limit in limits.items()})
    kept = {metric_of(name): limit or 0.5 for name, limit in limits.items()}
    checks = thresholds.checks(kept)  # exactly at the limit
    assert len(checks) == len(limits) > 0
    assert all(check.passed for check in checks)
    for name in limits:
        beyond = -1e-9 if name.startswith("min_") else 1e-9
        metrics = kept | {metric_of(name): kept[metric_of(name)] + beyond}
        failed = [check.name for check in thresholds.checks(metrics) if not check.passed]
        assert failed == [metric_of(name)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [None, math.nan, "missing"])
def test_metric_without_a_value_fails(kind: type[Thresholds], value: object) -> None:
    good = {metric_of(name): limit for name, limit in DEFAULTS[kind].items()}
    for name, limit in DEFAULTS[kind].items():
        if name == "report_only" or limit is None:
            continue
        metrics = good | {metric_of(name): value}
        if value == "missing":
            del metrics[metric_of(name)]
        failed = [check for check in kind().checks(metrics) if not check.passed]
        assert [check.describe() for check in failed] == [
            f"{metric_of(name)} could not be measured"
        ]


def test_limits_that_are_switched_off_are_not_checked() -> None:
    names = [check.name for check in DistillationThresholds().checks({}, prefix="here.")]
    assert names == [
        "here.action_agreement",
        "here.kl_divergence",
        "here.centered_mse",
        "here.mean_cosine_similarity",
        "here.param_ratio",
    ]


OUT_OF_RANGE = [
    ("min_action_agreement", 1.01, "a number from 0 to 1"),
    ("min_action_agreement", -0.01, "a number from 0 to 1"),
    ("min_robustness_action_agreement", 2.0, "a number from 0 to 1"),
    ("min_cosine_similarity", -1.5, "a number from -1 to 1"),
    ("max_kl_divergence", -0.1, "a number of at least 0"),
    ("max_mse", -1.0, "a number of at least 0"),
    ("max_mae", -1.0, "a number of at least 0"),
    ("max_mean_q_error", -1.0, "a number of at least 0"),
    ("max_param_ratio", 0.0, "a number above 0"),
    ("max_latency_ratio", 0.0, "a number above 0"),
]


@pytest.mark.parametrize(("name", "limit", "allowed"), OUT_OF_RANGE)
@pytest.mark.parametrize("instead", [None, math.nan, math.inf])
def test_limit_out_of_range_is_refused_by_its_flag(
    name: str, limit: float, allowed: str, instead: float | None
) -> None:
    value = limit if instead is None else instead
    flag = "--" + name.replace("_", "-")
    kinds = [kind for kind in KINDS if name in DEFAULTS[kind]]
    assert kinds
    for kind in kinds:
        with pytest.raises(StageError, match=f"^{flag} must be {allowed}, not {value}$"):
            kind(**{name: value})


@pytest.mark.parametrize(("name", "limit"), [("min_cosine_similarity", -1.0), ("max_mse", 0.0)])
def test_ends_of_the_range_are_allowed(name: str, limit: float) -> None:
    assert getattr(RecombinationThresholds(**{name: limit}), name) == limit


def test_limit_that_is_not_optional_cannot_be_none() -> None:
    with pytest.raises(StageError, match="--max-mse must be a number of at least 0, not None"):
        RecombinationThresholds(max_mse=None)  # type: ignore[arg-type]


def test_every_limit_has_a_range() -> None:
    limits = {field.name for kind in KINDS for field in fields(kind) if field.name != "report_only"}
    assert limits == {name for name, _, _ in OUT_OF_RANGE}


@pytest.mark.parametrize(
    ("value", "is_minimum", "words"),
    [
        (0.5, True, "mse is 0.5, below 1"),
        (1.5, True, "mse is 1.5, at least 1"),
        (1.5, False, "mse is 1.5, above 1"),
        (0.999999, False, "mse is 0.999999, at most 1"),
    ],
)
def test_check_says_value_and_limit(value: float, is_minimum: bool, words: str) -> None:
    assert Check("mse", value, 1.0, is_minimum).describe() == words
