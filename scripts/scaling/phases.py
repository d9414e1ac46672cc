"""What the workers did in each phase of a run, seen from between them and the driver."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.breeding import Context
from engine.dispatch.executor import Batch, Executor
from populations.plans import Plan, Result

STUDENTS, GENERATIONS, HOLDOUT = "students", "generations", "held-out episodes"
KINDS = {
    "ancestor": STUDENTS,
    "students": STUDENTS,
    "elites": GENERATIONS,
    "children": GENERATIONS,
    "holdout": HOLDOUT,
}


@dataclass(frozen=True)
class Task:
    """One batch.

    Attributes:
        phase: Phase of its plans.
        plans: How many these are.
        wall_s: Seconds that it took in the worker.
        cpu_s: CPU seconds that it took there.
    """

    phase: str
    plans: int
    wall_s: float
    cpu_s: float


@dataclass
class Phase:
    """Batches that the driver handed out together, and waited for.

    Attributes:
        kind: ``students``, ``generations`` or ``held-out episodes``.
        start: When the first batch was handed out, on the clock of ``time.perf_counter``.
        end: When the last result came.
        cpu_s: CPU seconds of the driver meanwhile, Ray's threads in its process included.
        tasks: The batches, in order of arrival.
    """

    kind: str
    start: float
    end: float = 0.0
    cpu_s: float = 0.0
    tasks: list[Task] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        """Seconds with a batch in flight."""
        return self.end - self.start


class PhaseClock:
    """An executor that notes how long what another one does takes.

    Attributes:
        phases: What was dispatched so far.

    Args:
        executor: Does the work.
    """

    def __init__(self, executor: Executor) -> None:
        self.phases: list[Phase] = []
        self._executor = executor

    @property
    def n_workers(self) -> int:
        """How many batches run at the same time."""
        return self._executor.n_workers

    def run(
        self, context: Context, batches: Sequence[Batch[Plan]], stop: threading.Event
    ) -> Iterator[list[Result]]:
        """Yield the results of each batch; see ``Executor``."""
        if not batches:
            return
        phase = Phase(KINDS[batches[0].plans[0].phase], time.perf_counter())
        self.phases.append(phase)
        number_of = {plan.key: i for i, batch in enumerate(batches) for plan in batch.plans}
        cpu = time.process_time()
        for results in self._executor.run(context, batches, stop):
            phase.end = time.perf_counter()
            phase.cpu_s = time.process_time() - cpu
            arrived = itertools.groupby(results, lambda result: number_of[result.key])
            phase.tasks += [_task(list(batch)) for _, batch in arrived]
            yield results

    def close(self) -> None:
        """Leave that to the other executor's owner."""

    def figures(self) -> dict[str, Any]:
        """Return seconds by kind of phase, of the driver alone, and the tasks of generations."""
        kinds = dict.fromkeys(phase.kind for phase in self.phases)
        found: dict[str, Any] = {kind: self._of_kind(kind) for kind in kinds}
        bred = [phase for phase in self.phases if phase.kind == GENERATIONS]
        wall = self.phases[-1].end - self.phases[0].start
        return {
            "phases": found,
            "in_flight_s": sum(each["wall_s"] for each in found.values()),
            "task_cpu_s": sum(each["task_cpu_s"] for each in found.values()),
            "alone_s": wall - sum(each["wall_s"] for each in found.values()),
            "n_generations": len(bred),
            "breeding_s": bred[-1].end - bred[0].start,
            "generations": [[asdict(task) for task in phase.tasks] for phase in bred],
        }

    def _of_kind(self, kind: str) -> dict[str, float]:
        phases = [phase for phase in self.phases if phase.kind == kind]
        return {
            "wall_s": sum(phase.wall_s for phase in phases),
            "task_cpu_s": sum(task.cpu_s for phase in phases for task in phase.tasks),
            "task_wall_s": sum(task.wall_s for phase in phases for task in phase.tasks),
            "driver_cpu_s": sum(phase.cpu_s for phase in phases),
        }


def _task(results: Sequence[Result]) -> Task:
    """Return what the results of a batch tell of it: each has its share of the time."""
    return Task(
        results[0].phase,
        len(results),
        sum(result.wall_s for result in results),
        sum(result.cpu_s for result in results),
    )
