"""Small runs in which something goes wrong, and a watch on what the executor makes of it.

Shared by tests and by the scripts that they start; workers get it by value.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest import mock

from threadpoolctl import threadpool_limits

from engine.config import RunConfig
from engine.config_file import load_config
from engine.dispatch.executor import Batch
from engine.dispatch.serial import SerialExecutor
from engine.dispatch.speculation import Flight
from engine.evolution import evolve
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from populations.leaderboard import stable_bytes

LONG_S = 120.0
COMPUTED_S = 1.0
BAD = 15  # the child to which it happens, the last one of generation 1
CONFIG = """
seed: 5
teachers:
  training: {steps: [6000, 6000], checkpoints: 2, checkpoint_episodes: 4}
states: {size: 256, episodes: 4}
network: {hidden: [8]}
distillation: {students: 4, steps: 30}
finetune: {steps: 10}
evolution:
  generations: 2
  population: 4
  children: 16
  elites: 1
  batch_size: 8
  controls: 0
  recipes: [{operator: weighted}]
evaluation: {episodes: 4, holdout_episodes: 4, champion_candidates: 2}
"""


@dataclass(frozen=True)
class Call:
    """When an operator was called, in seconds of the clock of the machine, and in which process."""

    pid: int
    at: float


def calls(log: Path) -> list[Call]:
    """Return the calls of a faulty operator."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [Call(int(pid), float(at)) for pid, at in map(str.split, lines)]


class Faulty:
    """An operator like another one, with a fault at its first call or at each; notes its calls.

    It keeps the name and the parameters of the other, which are part of a genome.
    """

    def __init__(
        self, operator: Any, log: Path, fault: Callable[[], None], always: bool = False
    ) -> None:
        self.operator = operator
        self.log = log
        self.fault = fault
        self.always = always

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "operator":
            raise AttributeError(name)
        return getattr(self.operator, name)

    def cross(self, parents: Any, rng: Any) -> Any:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {time.time()}\n")
        if self.always or len(calls(self.log)) == 1:
            self.fault()
        return self.operator.cross(parents, rng)


def nothing() -> None:
    """Go on."""


def hang() -> None:
    time.sleep(LONG_S)


def leave() -> None:
    os._exit(3)


def stop() -> None:
    """Stop the whole process: nothing in it can end it any more."""
    os.kill(os.getpid(), signal.SIGSTOP)


def compute() -> None:
    """Take some of the processor, however long that lasts."""
    until = time.process_time() + COMPUTED_S
    while time.process_time() < until:
        sum(range(1000))


@dataclass
class Watch:
    """How much an executor dispatches, and when it takes something for failed or late.

    Attributes:
        given: Batches that it was given.
        dispatched: Batches that it dispatched.
        reactions: When a dispatch failed or got a second copy, and the children in it.
    """

    given: int = 0
    dispatched: int = 0
    reactions: list[tuple[float, set[int]]] = field(default_factory=list)

    @property
    def extra(self) -> int:
        """Dispatches that would not have been without a fault."""
        return self.dispatched - self.given

    def noticed_after(self, children: Collection[int], since: float) -> float:
        """Return the seconds until the first reaction that concerns one of some children."""
        return next(at - since for at, some in self.reactions if at > since and some & {*children})

    def reacted(self, batch: Batch) -> None:
        self.reactions.append((time.time(), {plan.index for plan in batch.plans}))

    def flight(self, *arguments: Any) -> Flight:
        """Return a flight that is watched."""
        watch = self

        class Watched(Flight):
            def add(self, reference: Any, batch: Batch) -> None:
                watch.dispatched += 1
                super().add(reference, batch)

            def add_copy(self, reference: Any, original: Any, node: str | None) -> None:
                watch.dispatched += 1
                watch.reacted(self.batch(original))
                super().add_copy(reference, original, node)

            def failed(self, reference: Any) -> bool:
                watch.reacted(self.batch(reference))
                return super().failed(reference)

        return Watched(*arguments)


def dispatches(number: int) -> str:
    """Return a number of dispatches as a table tells it."""
    return "none" if number == 0 else f"{number} dispatch{'es' if number > 1 else ''}"


def disturb(executor: Any, spoil: Callable[[Any], Any] = lambda plan: plan) -> Watch:
    """Let an executor carry out other plans than it is given, and watch it."""
    from engine.dispatch import ray_executor

    watch, run = Watch(), executor.run

    def disturbed(context: Any, batches: Sequence[Batch], stop: Event) -> Iterator[Any]:
        watch.given += len(batches)
        spoiled = [replace(batch, plans=tuple(map(spoil, batch.plans))) for batch in batches]
        with mock.patch.object(ray_executor, "Flight", watch.flight):
            yield from run(context, spoiled, stop)

    executor.run = disturbed
    return watch


def is_child(plan: Any, index: int = BAD, generation: int = 1) -> bool:
    return plan.key == ("children", generation, index)


@dataclass(frozen=True)
class Undisturbed:
    """A run in which nothing went wrong.

    Attributes:
        config: Its configuration.
        outcome: What came of it; see :func:`outcome`.
    """

    config: RunConfig
    outcome: dict[str, bytes]


def undisturbed(folder: Path) -> Undisturbed:
    """Carry out the run in this process, with teachers that are trained before."""
    path = folder / "config.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    carry_out(folder / "first", load_config(path), None)
    files = sorted((folder / "first/teachers").glob("*.safetensors"))
    config = load_config(path, [f"teachers.files={[str(file) for file in files]}"])
    carry_out(folder / "undisturbed", config, None)
    return Undisturbed(config, outcome(folder / "undisturbed"))


def carry_out(path: Path, config: RunConfig, executor: Any) -> None:
    """Carry out a run, or what is missing of it; without an executor in this process."""
    with threadpool_limits(1), RunDirectory.open(path, config) as directory:
        evolve(directory, executor or SerialExecutor(config.dispatch), SilentProgress())


def outcome(path: Path) -> dict[str, bytes]:
    """Return all that must not depend on what goes wrong: leaderboard, genomes and champion."""
    files = [*sorted((path / "genomes").iterdir()), path / "champion.safetensors"]
    assert len(files) > 3
    found = {file.name: file.read_bytes() for file in files}
    return found | {"leaderboard.csv": stable_bytes(path / "leaderboard.csv")}


@contextlib.contextmanager
def meanwhile(log: Path, act: Callable[[int, Event], None]) -> Iterator[None]:
    """Do something to the worker of the first call of a faulty operator, as soon as there is one.

    Args:
        log: The notes of the operator.
        act: Called with the process, and an event that is set when the block ends.
    """
    over = Event()

    def wait() -> None:
        while not calls(log) and not over.wait(0.005):
            pass
        if not over.is_set():
            act(calls(log)[0].pid, over)

    thread = Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def slow_down(others: Path, pid: int, over: Event) -> None:
    """Let a process have a tenth of the processor that others had before.

    Args:
        others: Notes of operators that ``compute``.
        pid: The process.
        over: Set when that is enough.
    """
    at: dict[int, list[float]] = {}
    for call in calls(others):
        at.setdefault(call.pid, []).append(call.at)
    between = [after - before for times in at.values() for before, after in pairwise(times)]
    share = COMPUTED_S / statistics.median(between) / 10
    began, had = time.monotonic(), cpu_s(pid)
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it was too late
        while not over.wait(0.01):
            is_ahead = cpu_s(pid) - had > (time.monotonic() - began) * share
            os.kill(pid, signal.SIGSTOP if is_ahead else signal.SIGCONT)
        os.kill(pid, signal.SIGCONT)


def cpu_s(pid: int) -> float:
    """Return the seconds of the processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
