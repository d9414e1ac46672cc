"""What the validators ask of their metrics: limits, and whether they are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from engine.errors import StageError


@dataclass(frozen=True, slots=True)
class Check:
    """One metric and its limit.

    Attributes:
        name: Name of the metric.
        value: What was measured; None or NaN where it could not be.
        limit: What it must reach, or must not exceed.
        is_minimum: Whether ``limit`` is a least value; else it is a greatest one.
    """

    name: str
    value: float | None
    limit: float
    is_minimum: bool

    @property
    def passed(self) -> bool:
        """Whether the limit is kept; a value that is missing or NaN never does."""
        if self.value is None or math.isnan(self.value):
            return False
        return self.value >= self.limit if self.is_minimum else self.value <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return the check for a report; ``kind`` is ``min`` or ``max``."""
        return {
            "name": self.name,
            "value": self.value,
            "limit": self.limit,
            "kind": "min" if self.is_minimum else "max",
            "passed": self.passed,
        }

    def describe(self) -> str:
        """Return value and limit in words, for example ``mse is 7.69, above 2``."""
        if self.value is None or math.isnan(self.value):
            return f"{self.name} could not be measured"
        verdict = "at least" if self.is_minimum else "at most"
        if not self.passed:
            verdict = "below" if self.is_minimum else "above"
        return f"{self.name} is {self.value:.6g}, {verdict} {self.limit:g}"


# Least and greatest value of a limit, and whether the least itself is allowed.
_SHARE = (0.0, 1.0, True)
_COSINE = (-1.0, 1.0, True)
_NOT_NEGATIVE = (0.0, math.inf, True)
_POSITIVE = (0.0, math.inf, False)

_LIMITS: dict[str, tuple[str, tuple[float, float, bool]]] = {
    "min_action_agreement": ("action_agreement", _SHARE),
    "min_robustness_action_agreement": ("robustness_action_agreement", _SHARE),
    "min_cosine_similarity": ("mean_cosine_similarity", _COSINE),
    "max_kl_divergence": ("kl_divergence", _NOT_NEGATIVE),
    "max_distill_kl": ("kl_at_distillation_temperature", _NOT_NEGATIVE),
    "max_mse": ("centered_mse", _NOT_NEGATIVE),
    "max_mae": ("mae", _NOT_NEGATIVE),
    "max_mean_q_error": ("mean_q_error", _NOT_NEGATIVE),
    "max_param_ratio": ("param_ratio", _POSITIVE),
    "max_latency_ratio": ("latency_ratio", _POSITIVE),
}
"""Of each limit the metric that it is for, and its own range.

The squared error is that of Q-values less their mean over actions: training by a KL divergence
leaves that mean arbitrary, no action depends on it, and of two parents whose means differ a child
can have those of one at most. Two good CartPole parents differ by 40 to 700 in the mean square.
"""


@dataclass(frozen=True)
class Thresholds:
    """Limits by name; ``min_`` and ``max_`` say of which kind, and None switches one off.

    Raises:
        StageError: A limit is NaN, infinite or outside its range.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Names of the limits that may be None."""

    def __post_init__(self) -> None:
        """Check the range of every limit."""
        for name, limit in self._limits().items():
            if limit is None and name in self.OPTIONAL:
                continue
            _check_range(name, limit)

    def checks(self, metrics: Mapping[str, Any], prefix: str = "") -> list[Check]:
        """Hold metrics against the limits.

        Args:
            metrics: Metrics by name, numbers; one that is missing, None or NaN fails.
            prefix: Put before the name of each check, for example ``child_vs_parent_a.``.

        Returns:
            One check for each limit that is not None.
        """
        checks = []
        for name, limit in self._limits().items():
            if limit is not None:
                metric, _ = _LIMITS[name]
                value = metrics.get(metric)
                checks.append(Check(prefix + metric, value, limit, name.startswith("min_")))
        return checks

    def to_dict(self) -> dict[str, Any]:
        """Return all fields by name, for a report."""
        return asdict(self)

    def _limits(self) -> dict[str, float | None]:
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name in _LIMITS
        }


@dataclass(frozen=True)
class DistillationThresholds(Thresholds):
    """What a student must keep of its teacher; defaults of AgentFarm."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset(
        ("max_mae", "max_latency_ratio", "min_robustness_action_agreement")
    )

    min_action_agreement: float = 0.85
    """Least share of states with the same best action."""
    max_kl_divergence: float = 0.5
    """Greatest mean KL divergence from the teacher, in nats at temperature 1."""
    max_mse: float = 2.0
    """Greatest mean squared error of Q-values less their mean over actions."""
    min_cosine_similarity: float = 0.8
    """Least mean cosine of the vectors of Q-values."""
    max_param_ratio: float = 0.9
    """Greatest number of parameters, as a share of the teacher's."""
    max_mae: float | None = None
    """Greatest mean absolute error of Q-values."""
    max_latency_ratio: float | None = None
    """Greatest median latency for one state, as a multiple of the teacher's."""
    min_robustness_action_agreement: float | None = None
    """Least agreement on each of the robustness slices."""


@dataclass(frozen=True)
class QuantizationThresholds(Thresholds):
    """What a quantized network must keep of its float original; defaults of AgentFarm."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset(("max_latency_ratio",))

    min_action_agreement: float = 0.75
    """Least share of states with the same best action."""
    max_mean_q_error: float = 0.5
    """Greatest mean absolute error of Q-values."""
    min_cosine_similarity: float = 0.75
    """Least mean cosine of the vectors of Q-values."""
    max_latency_ratio: float | None = 2.0
    """Greatest median latency for one state, as a multiple of the float network's."""
    report_only: bool = False
    """Whether failing changes no exit code; recorded, and without influence on the checks."""


@dataclass(frozen=True)
class RecombinationThresholds(Thresholds):
    """What a child must keep of each of its parents; defaults of AgentFarm."""

    min_action_agreement: float = 0.70
    """Least share of states with the same best action."""
    max_kl_divergence: float = 1.0
    """Greatest mean KL divergence from the parent, in nats at temperature 1."""
    max_mse: float = 5.0
    """Greatest mean squared error of Q-values less their mean over actions."""
    min_cosine_similarity: float = 0.70
    """Least mean cosine of the vectors of Q-values."""
    report_only: bool = False
    """Whether failing changes no exit code; recorded, and without influence on the checks."""


def _check_range(name: str, limit: float | None) -> None:
    """Refuse a limit that no metric could sensibly be held against."""
    _, (least, greatest, with_least) = _LIMITS[name]
    if limit is not None and math.isfinite(limit):
        above = limit >= least if with_least else limit > least
        if above and limit <= greatest:
            return
    if greatest == math.inf:
        allowed = f"a number {'of at least' if with_least else 'above'} {least:g}"
    else:
        allowed = f"a number from {least:g} to {greatest:g}"
    flag = "--" + name.replace("_", "-")
    raise StageError(f"{flag} must be {allowed}, not {limit}")
