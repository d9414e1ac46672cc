"""How long networks take, and how much memory the process does.

Every network is timed in its NumPy forward pass. An int8 network was dequantized when it was
loaded, so it computes in float32 like any other, and its gain is its size on disk and in transit,
not its speed; reports say so under ``runtime``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import StageError
from engine.one_thread import one_thread
from engine.stages.networks import Network

RUNTIME = "weights dequantized at load, float32 arithmetic"


@dataclass(frozen=True, slots=True)
class LatencySettings:
    """How the latency for a single state is measured.

    Attributes:
        warmup: Forward passes of each network before the first timed one.
        repeats: Timed forward passes of each network; 0 measures nothing.

    Raises:
        StageError: A number is negative.
    """

    warmup: int = 5
    repeats: int = 50

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        _check_at_least(0, {"--latency-warmup": self.warmup, "--latency-repeats": self.repeats})


@dataclass(frozen=True, slots=True)
class ThroughputSettings:
    """How the throughput for batches is measured.

    Attributes:
        batch_size: States of a batch, at most as many as there are; 0 measures nothing.
        warmup_batches: Batches of each network before the first timed one.
        timed_batches: Timed batches of each network.

    Raises:
        StageError: A number is negative, or no batch is timed.
    """

    batch_size: int = 0
    warmup_batches: int = 2
    timed_batches: int = 10

    def __post_init__(self) -> None:
        """Refuse numbers that measure nothing."""
        sizes = {
            "--throughput-batch-size": self.batch_size,
            "--throughput-warmup-batches": self.warmup_batches,
        }
        _check_at_least(0, sizes)
        _check_at_least(1, {"--throughput-timed-batches": self.timed_batches})


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of a forward pass for one state, in milliseconds; NaN where it was not measured."""

    median_ms: float
    mean_ms: float
    p95_ms: float


def latencies(
    networks: Mapping[str, Network], state: NDArray[np.float32], settings: LatencySettings
) -> dict[str, Latency]:
    """Time single-state forward passes.

    The networks take turns, in alternating order, so that what else the machine does meets all of
    them alike.

    Args:
        networks: The networks by name.
        state: One state, ``(1, n_inputs)``.
        settings: Numbers of passes.
    """
    times = _times(networks, state, settings.warmup, settings.repeats)
    return {name: _summary(measured) for name, measured in times.items()}


def throughputs(
    networks: Mapping[str, Network], states: NDArray[np.float32], settings: ThroughputSettings
) -> dict[str, float]:
    """Return the batches per second of each network, NaN where nothing is measured.

    The networks take turns, as in :func:`latencies`. A batch are the first ``batch_size`` states.
    """
    if settings.batch_size == 0:
        return dict.fromkeys(networks, float("nan"))
    batch = states[: settings.batch_size]
    times = _times(networks, batch, settings.warmup_batches, settings.timed_batches)
    return {name: 1e3 * len(measured) / sum(measured) for name, measured in times.items()}


def ratio(query: Latency, reference: Latency) -> float:
    """Return the median latency as a multiple of another one, NaN where one is not known."""
    if not reference.median_ms > 0:
        return float("nan")
    return query.median_ms / reference.median_ms


def resident_bytes() -> int | None:
    """Return the memory of this process that is in RAM, None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    import resource

    return pages * resource.getpagesize()


def peak_resident_kilobytes() -> int | None:
    """Return the most memory that this process ever had in RAM, None where nobody tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak  # there it is in bytes


@np.errstate(over="ignore", invalid="ignore")  # such values are told of where they are compared
def _times(
    networks: Mapping[str, Network], states: NDArray[np.float32], warmup: int, repeats: int
) -> dict[str, list[float]]:
    """Return the time of each timed pass of each network, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    order = list(networks.items())
    with one_thread():
        for turn in range(warmup + repeats):
            for name, network in order if turn % 2 == 0 else reversed(order):
                start = time.perf_counter()
                network.q_values(states)
                elapsed = time.perf_counter() - start
                if turn >= warmup:
                    times[name].append(1e3 * elapsed)
    return times


def _summary(times: list[float]) -> Latency:
    if not times:
        return Latency(float("nan"), float("nan"), float("nan"))
    median, p95 = np.percentile(times, [50, 95])
    return Latency(float(median), float(np.mean(times)), float(p95))


def _check_at_least(least: int, values: Mapping[str, int]) -> None:
    for flag, value in values.items():
        if value < least:
            raise StageError(f"{flag} must be at least {least}, not {value}")
