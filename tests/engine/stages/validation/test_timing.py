"""How networks are timed: by a clock that the test turns."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import StageError
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.validation import timing
from engine.stages.validation.timing import Latency, LatencySettings, ThroughputSettings

SPEC = teacher_spec(4, 2, 8)
STATES = np.zeros((10, 4), np.float32)


@dataclass
class Clock:
    """A clock that only stands still or is turned."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Slow(Network):
    """A network whose passes take the given times, one after the other."""

    clock: Clock = field(default_factory=Clock)
    durations_s: list[float] = field(default_factory=list)
    calls: list[tuple[float, int]] = field(default_factory=list)

    def q_values(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls.append((self.clock.now_s, len(states)))
        self.clock.now_s += self.durations_s[len(self.calls) - 1]
        return states


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def test_weights_that_overflow_are_timed_without_a_warning() -> None:
    weights = {
        name: np.full_like(tensor, 1e30) if tensor.ndim == 2 else tensor
        for name, tensor in initial_weights(SPEC, 0).items()
    }
    weights["network.0.weight"][::2] *= -1  # or the normalization would subtract all of it
    rows = np.ones((3, 4), np.float32)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        Network(SPEC, weights).q_values(rows)
    times = timing._times({"student": Network(SPEC, weights)}, rows, 1, 2)
    assert len(times["student"]) == 2


def test_latency_is_taken_over_the_passes_after_the_warm_up(clock: Clock) -> None:
    times = [9.0, 9.0, 0.001, 0.002, 0.003, 0.004, 0.1]
    network = Slow(SPEC, {}, clock, times)
    measured = timing.latencies({"it": network}, STATES[:1], LatencySettings(2, 5))["it"]
    assert measured.median_ms == pytest.approx(3)
    assert measured.mean_ms == pytest.approx(22)
    assert measured.p95_ms == pytest.approx(4 + 0.8 * 96)  # 3.8 of the way from first to fifth


def test_networks_take_turns_in_alternating_order(clock: Clock) -> None:
    a, b = (Slow(SPEC, {}, clock, [1.0] * 4) for _ in range(2))
    timing.latencies({"a": a, "b": b}, STATES[:1], LatencySettings(1, 3))
    assert [start for start, _ in a.calls] == [0, 3, 4, 7]
    assert [start for start, _ in b.calls] == [1, 2, 5, 6]


def test_throughput_counts_the_batches_after_the_warm_up(clock: Clock) -> None:
    network = Slow(SPEC, {}, clock, [50.0, 1.0, 2.0, 5.0])
    speeds = timing.throughputs({"it": network}, STATES, ThroughputSettings(4, 1, 3))
    assert speeds["it"] == pytest.approx(3 / 8)
    assert {size for _, size in network.calls} == {4}


def test_nothing_is_run_where_nothing_is_asked_for(clock: Clock) -> None:
    network = Slow(SPEC, {}, clock)
    measured = timing.latencies({"it": network}, STATES[:1], LatencySettings(0, 0))["it"]
    assert math.isnan(measured.median_ms)
    assert math.isnan(timing.throughputs({"it": network}, STATES, ThroughputSettings())["it"])
    assert network.calls == []


def test_real_networks_take_some_time() -> None:
    network = Network(SPEC, initial_weights(SPEC, 0))
    measured = timing.latencies({"it": network}, STATES[:1], LatencySettings(1, 5))["it"]
    assert 0 < measured.median_ms <= measured.p95_ms < 1000
    assert timing.throughputs({"it": network}, STATES, ThroughputSettings(8))["it"] > 1


def test_ratio_is_of_the_medians() -> None:
    known, unknown = Latency(2, 1, 1), Latency(math.nan, math.nan, math.nan)
    assert timing.ratio(Latency(3, 9, 9), known) == 1.5
    assert math.isnan(timing.ratio(known, unknown))
    assert math.isnan(timing.ratio(unknown, known))
    assert math.isnan(timing.ratio(known, Latency(0, 0, 0)))


def test_peak_memory_is_in_the_unit_of_its_name() -> None:
    resident, peak = timing.resident_bytes(), timing.peak_resident_kilobytes()
    assert resident is not None
    assert peak is not None
    assert 1e6 < resident < 1e11
    assert resident / 2 < 1024 * peak < 1e11


@pytest.mark.parametrize(
    ("kind", "name", "value", "flag"),
    [
        (LatencySettings, "warmup", -1, "--latency-warmup must be at least 0, not -1"),
        (LatencySettings, "repeats", -5, "--latency-repeats must be at least 0, not -5"),
        (ThroughputSettings, "batch_size", -1, "--throughput-batch-size must be at least 0"),
        (
            ThroughputSettings,
            "warmup_batches",
            -1,
            "--throughput-warmup-batches must be at least 0",
        ),
        (ThroughputSettings, "timed_batches", 0, "--throughput-timed-batches must be at least 1"),
    ],
)
def test_negative_numbers_are_refused_by_their_flag(
    kind: type, name: str, value: int, flag: str
) -> None:
    with pytest.raises(StageError, match=flag):
        kind(**{name: value})
