"""A run on any number of workers, simulated: one driver, a queue, and a barrier per generation.

As many batches are in flight as the engine's own rule lets there be. Workers start what waits in
the order in which it was sent. Left out: machines that are lost or slow, second copies of late
batches, and the network.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.dispatch.speculation import SURPLUS

SHORTEST = 0.05
"""Least part of the mean that a batch takes, however much batches of its size vary."""


@dataclass(frozen=True)
class Costs:
    """Seconds of what is not birth.

    Attributes:
        plan_s: The driver's per child before anything of a generation is sent: workers wait.
        send_s: The driver's per batch that it sends.
        take_s: The driver's per batch that comes back, beside what each child costs.
        child_s: The driver's per child that comes back: what travels, and the journal.
        sync_s: Waiting for the disk, each time that results are recorded.
        finish_s: The driver's per child once all of a generation are back: workers wait.
        way_s: From sending a batch until a free worker has it, and from its end until the driver
            can know.
        gap_s: From the end of a batch until its worker starts one that waits already.
        look_s: The driver's each time that it looks what has arrived, per batch in flight.
        end_s: Waiting for the disk once all of a generation are back, until its files are safe:
            workers wait.
    """

    plan_s: float
    send_s: float
    take_s: float
    child_s: float
    sync_s: float
    finish_s: float
    way_s: float
    gap_s: float
    look_s: float = 0.0
    end_s: float = 0.0


@dataclass(frozen=True)
class Spread:
    """How much batches vary, of one size and so of any other one.

    Births in a batch vary independently of one another, or nearly so: the deviation of their mean
    goes with one by the square root of their number. Batches of fewer births vary more.

    Attributes:
        factors: Seconds of measured batches, each as a multiple of their mean.
        plans: Births of each of these.
    """

    factors: NDArray[np.float64]
    plans: int

    def of(self, sizes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw the seconds of batches, as multiples of the mean of their size.

        Args:
            sizes: Births of each batch.
            rng: Random stream.
        """
        deviations = rng.choice(self.factors, len(sizes)) - 1
        return np.maximum(1 + deviations * np.sqrt(self.plans / sizes), SHORTEST)


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        wall_s: Seconds of all generations.
        task_s: Seconds that workers spent on batches.
        driver_s: Seconds that the driver was busy.
        n_workers: How many workers there were.
        children: How many children were born.
        ends_s: Seconds before the first batch was sent, and after the last one was back.
    """

    wall_s: float
    task_s: float
    driver_s: float
    n_workers: int
    children: int
    ends_s: float

    @property
    def efficiency(self) -> float:
        """Share of the workers' time that was spent on batches."""
        return self.task_s / (self.wall_s * self.n_workers)

    @property
    def inner_efficiency(self) -> float:
        """Efficiency between the first batch that was sent and the last one that came back."""
        return self.task_s / ((self.wall_s - self.ends_s) * self.n_workers)

    @property
    def births_per_s(self) -> float:
        """Children per second."""
        return self.children / self.wall_s

    @property
    def driver_share(self) -> float:
        """Share of the time in which the driver was busy."""
        return self.driver_s / self.wall_s


def simulate(
    n_workers: int, generations: Sequence[Sequence[tuple[int, float]]], costs: Costs
) -> Outcome:
    """Go through generations of batches, one after the other.

    Args:
        n_workers: Number of workers.
        generations: Of each the batches in the order in which they are sent: children, and seconds.
        costs: What everything else takes.
    """
    wall_s = driver_s = 0.0
    for batches in generations:
        elapsed, busy = _generation(n_workers, batches, costs)
        wall_s += elapsed
        driver_s += busy
    return Outcome(
        wall_s,
        sum(seconds for batches in generations for _, seconds in batches),
        driver_s,
        n_workers,
        sum(children for batches in generations for children, _ in batches),
        sum(children for children, _ in generations[0]) * costs.plan_s
        + sum(children for children, _ in generations[-1]) * costs.finish_s
        + costs.end_s,
    )


def window(n_workers: int) -> int:
    """Return how many batches are in flight at most."""
    return n_workers + max(1, round(n_workers * SURPLUS))


def _generation(
    n_workers: int, batches: Sequence[tuple[int, float]], costs: Costs
) -> tuple[float, float]:
    """Return the seconds of one generation, and those in which the driver was busy."""
    n_children = sum(children for children, _ in batches)
    now = busy = n_children * costs.plan_s
    free = [0.0] * n_workers  # when each worker is free
    flight: list[tuple[float, int]] = []  # when the driver can know of the end, and which batch
    n_sent = 0
    while flight or n_sent < len(batches):
        before = now
        while n_sent < len(batches) and len(flight) < window(n_workers):
            _, seconds = batches[n_sent]
            now += costs.send_s
            start = max(now + costs.way_s, heapq.heappop(free))
            heapq.heappush(free, start + seconds + costs.gap_s)
            heapq.heappush(flight, (start + seconds + costs.way_s, n_sent))
            n_sent += 1
        busy += now - before
        before = now = max(now, flight[0][0])
        now += len(flight) * costs.look_s
        while flight and flight[0][0] <= before:  # those that are there by now
            _, number = heapq.heappop(flight)
            now += costs.take_s + batches[number][0] * costs.child_s
        now += costs.sync_s
        busy += now - before
    finish = n_children * costs.finish_s + costs.end_s
    return now + finish, busy + finish


def draw_generations(
    n_generations: int,
    n_children: int,
    batch_size: int,
    birth_s: float,
    spread: Spread,
    rng: np.random.Generator,
) -> list[list[tuple[int, float]]]:
    """Return batches whose seconds vary as those of measured births do.

    Args:
        n_generations: Number of generations.
        n_children: Children of each.
        batch_size: Children of a batch.
        birth_s: Mean seconds of a birth.
        spread: How much measured batches vary.
        rng: Random stream.
    """
    sizes = [min(batch_size, n_children - first) for first in range(0, n_children, batch_size)]
    return [
        [
            (size, float(size * birth_s * factor))
            for size, factor in zip(sizes, spread.of(np.array(sizes), rng), strict=True)
        ]
        for _ in range(n_generations)
    ]
