"""What the driver of a run spends, by what it does, while its births take no time."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import resource
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from engine import evolution
from engine.breeding import Context
from engine.cli.main import GARBAGE_AFTER
from engine.dispatch.executor import Batch
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from populations.manager import PopulationManager
from populations.plans import Plan, Result
from scaling.births import IdleBirths, make_config

START = "the loop itself"
ONCE = "teachers and states, once"
WORKER = "the stand-in for workers"
PICKLING = "pickling plans and results"
PLANNING = "planning births"
LOOKING = "looking for recorded results"
JOURNAL = "results into the journal"
PACKS, RECIPES, ROWS = "genome packs", "table of recipes", "rows into journal and leaderboard"
NOT_PER_CHILD = (WORKER, ONCE)
AT_THE_END = (PACKS, RECIPES, ROWS)
"""Stages that wait for the disk once all of a generation are back."""
STAGES = {
    (evolution, "prepare"): ONCE,
    (evolution, "baseline_rows"): ONCE,
    (PopulationManager, "ask"): PLANNING,
    (PopulationManager, "tell"): "taking in results",
    (PopulationManager, "finish_generation"): "survival, learning of recipes",
    (RunDirectory, "recorded"): LOOKING,
    (RunDirectory, "record"): JOURNAL,
    (RunDirectory, "save_genomes"): PACKS,
    (RunDirectory, "save_recipes"): RECIPES,
    (RunDirectory, "finish_stage"): ROWS,
    (RunDirectory, "open_leaderboard"): "writing the leaderboard anew",
    (RunDirectory, "resume"): "opening the run again",
}


class StageClock:
    """CPU seconds of this process by stage; a stage does not count those inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stage = START
        self._since = time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside for one stage."""
        outer = self._stage
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    @property
    def name(self) -> str:
        """The stage that this is."""
        return self._stage

    def driver(self) -> float:
        """Return the seconds of what the driver does per child, up to now."""
        self._switch(self._stage)
        return sum(s for name, s in self.seconds.items() if name not in NOT_PER_CHILD)

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the function as a stage."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return call

    def _switch(self, name: str) -> None:
        now = time.process_time()
        self.seconds[self._stage] += now - self._since
        self._stage, self._since = name, now


class DiskClock:
    """Seconds that this process waited for a disk to say that it has all, by stage.

    Args:
        stages: Knows which stage this is.
    """

    def __init__(self, stages: StageClock) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.times: Counter[str] = Counter()
        self._stages = stages
        self._sync = os.fsync

    def sync(self, descriptor: int) -> None:
        """Stand in for ``os.fsync``."""
        start = time.perf_counter()
        self._sync(descriptor)
        self.seconds[self._stages.name] += time.perf_counter() - start
        self.times[self._stages.name] += 1


class StandIn:
    """An executor whose births take no time; all that travels is pickled, as it is for Ray."""

    n_workers = 1

    def __init__(self, clock: StageClock, episodes: int) -> None:
        self._clock = clock
        self._births = IdleBirths(episodes)

    def run(
        self, context: Context, batches: Sequence[Batch[Plan]], stop: threading.Event
    ) -> Iterator[list[Result]]:
        """Yield the results of each batch; see ``Executor``."""
        for batch in batches:
            with self._clock.stage(PICKLING):
                sent = pickle.dumps((batch.plans, dict(batch.genomes)))
            with self._clock.stage(WORKER):
                plans, genomes = pickle.loads(sent)
                answer = pickle.dumps(self._births.work(plans, genomes))
            with self._clock.stage(PICKLING):
                results: list[Result] = pickle.loads(answer)
            yield results

    def close(self) -> None:
        """Nothing was started."""


class Meter(SilentProgress):
    """Notes CPU seconds, wall seconds and memory at the start of every generation.

    About ten times in a run it tells how far that is.

    Args:
        clock: Of this process.
        generations: Of the whole run.
    """

    def __init__(self, clock: StageClock, generations: int) -> None:
        self.marks: list[tuple[float, float, float]] = []
        self._clock = clock
        self._generations = generations

    def phase(self, name: str, total: int | None = None) -> None:
        """Take a reading between two generations."""
        if name in ("breeding", "champion"):
            self.marks.append((self._clock.driver(), time.perf_counter(), memory_mb()))
            done, tenth = len(self.marks) - 1, max(1, self._generations // 10)
            if done and done % tenth == 0:
                elapsed = self.marks[-1][1] - self.marks[0][1]
                print(
                    f"  generation {done:,} of {self._generations:,}: {elapsed:.0f} s, "
                    f"{self.marks[-1][2]:.0f} MB",
                    file=sys.stderr,
                )


def memory_mb() -> float:
    """Return the resident memory of this process; the highest so far where Linux is not."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_mb(resource.RUSAGE_SELF)
    return pages * resource.getpagesize() / 1e6


def peak_mb(who: int) -> float:
    """Return the highest resident memory so far of this process, or of those that it started."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit / 1e6


def measure(
    run: Path, inputs: Path, generations: int, per_generation: int, is_again: bool = False
) -> dict[str, Any]:
    """Go through a whole run and return what it took.

    Args:
        run: The run directory.
        inputs: Folder for the teachers and states.
        generations: Number of generations.
        per_generation: Children of each.
        is_again: Whether the run is there, and is to be replayed out of its journal.
    """
    config = make_config(inputs, generations, per_generation)
    clock = StageClock()
    disk = DiskClock(clock)
    meter = Meter(clock, generations)
    with ExitStack() as stack:
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(GARBAGE_AFTER)  # as the command does
        for (owner, name), label in STAGES.items():
            timed = clock.timed(getattr(owner, name), label)
            is_bound = isinstance(owner.__dict__[name], classmethod)
            stack.enter_context(
                mock.patch.object(owner, name, staticmethod(timed) if is_bound else timed)
            )
        stack.enter_context(mock.patch.object(os, "fsync", disk.sync))
        start = time.perf_counter()
        directory = RunDirectory.resume(run) if is_again else RunDirectory.open(run, config)
        stand_in = StandIn(clock, config.evaluation.episodes)
        evolution.evolve(stack.enter_context(directory), stand_in, meter)
    driver, wall = clock.driver(), time.perf_counter() - start
    n_children = generations * per_generation
    n_bytes = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    return {
        "children": n_children,
        "cpu_ms": 1e3 * driver / n_children,
        "wall_s": wall,
        "bytes": n_bytes / n_children,
        "peak_mb": peak_mb(resource.RUSAGE_SELF),
        "syncs": disk.times.total(),
        "sync_ms": 1e3 * sum(disk.seconds.values()) / max(disk.times.total(), 1),
        "end_syncs": sum(disk.times[stage] for stage in AT_THE_END) / generations,
        "end_sync_ms": 1e3 * sum(disk.seconds[stage] for stage in AT_THE_END) / generations,
        "tenths": tenths(meter.marks, per_generation),
        "stages_ms": {
            name: 1e3 * seconds / n_children
            for name, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1])
        },
    }


def tenths(marks: Sequence[tuple[float, float, float]], per_generation: int) -> list[list[float]]:
    """Return children so far, CPU and wall ms per child, and memory in MB, for parts of a run.

    The parts are tenths of the run, or generations where these are fewer.

    Args:
        marks: CPU seconds, wall seconds and MB at the start of each generation and at the end.
        per_generation: Children of a generation.
    """
    n_generations = len(marks) - 1
    parts = min(10, n_generations)
    edges = [n_generations * part // parts for part in range(parts + 1)]
    table = []
    for first, last in itertools.pairwise(edges):
        per_child = 1e3 / ((last - first) * per_generation)
        (cpu, wall, _), (cpu_after, wall_after, memory) = marks[first], marks[last]
        table.append(
            [
                last * per_generation,
                (cpu_after - cpu) * per_child,
                (wall_after - wall) * per_child,
                memory,
            ]
        )
    return table
