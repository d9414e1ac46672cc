"""A real Ray whose workers sleep: many more of them than the machine has cores."""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from engine.breeding import Context
from engine.config import RunConfig
from engine.dispatch.executor import Batch, Executor
from engine.dispatch.workers import executor_of
from engine.evolution import evolve
from engine.founders import student_plans
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from populations.plans import ChildPlan, Plan, Result
from scaling import births
from scaling.births import IdleBirths, make_config
from scaling.phases import GENERATIONS, PhaseClock

BATCHES = 300  # that CPU time is measured over
ONE_BY_ONE = 60
IN_FLIGHT, LOOKS = 1000, 20
NAP_S = 0.02
LOOKING_S, PATIENCE_S = 10.0, 120.0  # a task that outlasts all looks, and waiting for the others
SIZES = (1, 16)


@dataclass(frozen=True)
class RayCosts:
    """Seconds that Ray takes.

    Attributes:
        batch_s: CPU of the driver per batch.
        child_s: CPU of the driver per child of a batch, pickling included.
        way_s: From sending a batch until an idle worker has it, and as long again from its end
            until the driver knows.
        gap_s: From the end of a batch until its worker starts the one that waits.
        look_s: CPU of the driver each time that it looks what has arrived, per batch in flight.
    """

    batch_s: float
    child_s: float
    way_s: float
    gap_s: float
    look_s: float


class Napping:
    """An executor that hands its batches to another one, but as births that only take time.

    Attributes:
        generations: Children and seconds of all batches so far that belong to a generation.
    """

    def __init__(self, executor: Executor, stand_in: IdleBirths) -> None:
        self.generations: list[list[tuple[int, float]]] = []
        self._executor = executor
        self._stand_in = stand_in

    @property
    def n_workers(self) -> int:
        """How many batches run at the same time."""
        return self._executor.n_workers

    def run(
        self, context: Context, batches: Sequence[Batch[Plan]], stop: threading.Event
    ) -> Iterator[list[Result]]:
        """Yield the results of each batch; see ``Executor``."""
        naps = [(len(batch.plans), self._stand_in.nap_s(batch.plans)) for batch in batches]
        if batches and batches[0].plans[0].phase in ("elites", "children"):
            self.generations.append(naps)
        yield from self._executor.run(self._stand_in, batches, stop)

    def close(self) -> None:
        """Leave that to the other executor's owner."""


def sleeping_workers(config: RunConfig, n_workers: int) -> AbstractContextManager[Executor]:
    """Return a context manager that yields an executor whose workers can sleep."""
    return executor_of(config.dispatch, "local", n_workers, [sys.modules[births.__name__]])


def ray_costs() -> RayCosts:
    """Measure what Ray itself takes, with one worker."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder), 1, BATCHES * max(SIZES))
    idle = IdleBirths(config.evaluation.episodes)
    napping = IdleBirths(config.evaluation.episodes, [NAP_S])
    with sleeping_workers(config, 1) as executor:
        few, many = (_cpu_per_batch(executor, idle, config, size) for size in SIZES)
        plans = _plans(config)
        alone = []
        for number in range(ONE_BY_ONE):
            start = time.perf_counter()
            _run(executor, napping, [Batch.of([plans[number]], {})])
            alone.append(time.perf_counter() - start - NAP_S)
        start = time.perf_counter()
        _run(executor, napping, [Batch.of([plan], {}) for plan in plans[:ONE_BY_ONE]])
        gap_s = (time.perf_counter() - start) / ONE_BY_ONE - NAP_S
        look_s = _cpu_per_look() / IN_FLIGHT
    child_s = (many - few) / (SIZES[1] - SIZES[0])
    batch_s = few - SIZES[0] * child_s
    way_s = (statistics.median(alone) - few) / 2
    return RayCosts(batch_s, child_s, max(way_s, 0.0), max(gap_s, 0.0), look_s)


def sleep_through_run(
    n_workers: int, generations: int, n_children: int, batch_size: int, naps_s: Sequence[float]
) -> tuple[float, list[list[tuple[int, float]]]]:
    """Go through a real run whose births only take time.

    Args:
        n_workers: Workers of Ray, however few cores there are.
        generations: Number of generations.
        n_children: Children of each.
        batch_size: Children of a batch.
        naps_s: Seconds that births take.

    Returns:
        Seconds from the first batch of the first generation to the last result of the last one, and
        children and seconds of the batches of each generation.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder), generations, n_children, batch_size=batch_size)
        stand_in = IdleBirths(config.evaluation.episodes, naps_s)
        with (
            RunDirectory.open(Path(folder, "run"), config) as directory,
            sleeping_workers(config, n_workers) as executor,
        ):
            # So that every worker has started, and has imported what it needs.
            plans = _plans(config)[: 2 * n_workers]
            _run(
                executor,
                IdleBirths(config.evaluation.episodes, [1.0]),
                [Batch.of([plan], {}) for plan in plans],
            )
            napping = Napping(executor, stand_in)
            clock = PhaseClock(napping)
            evolve(directory, clock, SilentProgress())
    phases = [phase for phase in clock.phases if phase.kind == GENERATIONS]
    return phases[-1].end - phases[0].start, napping.generations


def _plans(config: RunConfig) -> list[ChildPlan]:
    """Return births from nothing, as many as a generation has."""
    students = config.distillation.model_copy(update={"students": config.evolution.children})
    return student_plans(config.model_copy(update={"distillation": students}), 2, None)


def _cpu_per_batch(executor: Executor, idle: IdleBirths, config: RunConfig, size: int) -> float:
    plans = _plans(config)
    batches = [Batch.of(plans[i * size : (i + 1) * size], {}) for i in range(BATCHES)]
    _run(executor, idle, batches[:10])
    start = time.process_time()
    _run(executor, idle, batches)
    return (time.process_time() - start) / BATCHES


def _cpu_per_look() -> float:
    """Return the driver's CPU seconds for a look at many tasks, none of which is finished."""
    import ray  # once the session has prepared its settings

    nap = ray.remote(num_cpus=1)(lambda seconds: time.sleep(seconds))
    waiting = [nap.remote(LOOKING_S)] + [nap.remote(0) for _ in range(IN_FLIGHT - 1)]
    start = time.process_time()
    for _ in range(LOOKS):
        ray.wait(waiting, num_returns=1, timeout=0)
        ray.wait(waiting, num_returns=len(waiting), timeout=0)
    spent = (time.process_time() - start) / LOOKS
    # Ray complains about what is under way when it ends.
    _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=PATIENCE_S)
    if waiting:
        raise SystemExit(f"{len(waiting)} tasks that only sleep did not end in {PATIENCE_S} s")
    return spent


def _run(executor: Executor, context: IdleBirths, batches: Sequence[Batch[Plan]]) -> None:
    for results in executor.run(context, batches, threading.Event()):
        if results[0].status != "ok":
            raise SystemExit(f"a birth that does nothing failed: {results[0].reason}")
