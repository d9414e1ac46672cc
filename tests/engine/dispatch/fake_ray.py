"""A cluster that only pretends, on a clock that jumps: hours of trouble in milliseconds.

It has just that of Ray which ``RayExecutor`` calls. Tasks are not carried out: a plan says itself
what becomes of it.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

from engine.dispatch.executor import Batch
from engine.dispatch.roster import Node, Roster
from engine.dispatch.speculation import Flight
from engine.dispatch.stall import StallWatch

TICK_S = 0.25
LONGEST_S = 1e6
"""A run that takes longer than that, on the clock that jumps, does not end at all."""

Kind = Literal["good", "raises", "crashes", "ends its node", "never ends", "cannot be sent"]


@dataclass(frozen=True)
class Told:
    """What became of a plan."""

    index: int
    status: str
    reason: str = ""
    node: str = ""
    attempts: int = 0


@dataclass(frozen=True)
class Plan:
    """A plan to which something happens."""

    index: int
    kind: Kind = "good"
    seconds: float = 1.0
    phase: str = "plans"

    needs = ()

    def abandoned(self, status: str, reason: str, attempts: int) -> Told:
        return Told(self.index, status, reason, "", attempts)

    def __reduce__(self) -> Any:
        if self.kind == "cannot be sent":
            raise RuntimeError("a lock of another process")
        return Plan, (self.index, self.kind, self.seconds, self.phase)


@dataclass(eq=False)
class Task:
    """A dispatch.

    Attributes:
        plans: What it is to carry out.
        barred: Nodes that it must not run on.
        node: Where it runs or ran.
        until: When it ends.
        how: What ends it.
        outcome: What ``ray.get`` returns or raises; None while there is nothing.
    """

    plans: Sequence[Plan]
    barred: set[str]
    node: Host | None = None
    until: float = 0.0
    how: Kind = "good"
    outcome: Any = None

    def task_id(self) -> Any:
        return SimpleNamespace(hex=lambda: str(id(self)))


@dataclass(eq=False)
class Host:
    """A node.

    Attributes:
        id: Ray's id.
        slots: Its CPUs.
        problem: What it answers when it is asked: empty, it may be used.
        taken: CPUs that somebody else's job has.
        spoils: Whether whatever runs there raises.
        is_silent: Whether nothing comes from it any more.
        is_alive: Whether Ray takes it for alive.
    """

    id: str
    slots: int = 1
    problem: str = ""
    taken: int = 0
    spoils: bool = False
    is_silent: bool = False
    is_alive: bool = True
    running: list[Task] = field(default_factory=list)


class FakeRay:
    """The cluster.

    Args:
        seed: Of the choice of nodes.
    """

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.hosts: list[Host] = []
        self.events: list[tuple[float, Callable[[], None]]] = []
        self.dispatched: Counter[int] = Counter()  # by plan
        self.notes: list[str] = []
        self.after_death: Callable[[Host], None] = lambda host: None
        self._queue: deque[Task] = deque()
        self._rng = random.Random(seed)
        self._numbers = itertools.count(1)

    def add(self, slots: int = 1, **known: Any) -> Host:
        host = Host(f"{next(self._numbers):056x}", slots, **known)
        self.hosts.append(host)
        return host

    def at(self, seconds: float, act: Callable[[], Any]) -> None:
        """Let something happen."""
        self.events.append((seconds, act))
        self.events.sort(key=lambda event: event[0])

    def lose(self, host: Host, error: Exception | None = None) -> None:
        from ray import exceptions

        host.is_alive = False
        for task in host.running:
            task.outcome = error or exceptions.NodeDiedError("gone")
        host.running.clear()
        self.after_death(host)

    def has_begun(self, name: str) -> bool:
        running = [task for host in self.hosts for task in host.running]
        return any(str(id(task)) == name for task in running)

    # What the executor calls.

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        return lambda function: self._function(function, {})

    def put(self, value: object) -> object:
        return value

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": host.id,
                "NodeManagerHostname": "host",
                "Alive": host.is_alive,
                "Resources": {"CPU": float(host.slots)},
            }
            for host in self.hosts
        ]

    def wait(self, tasks: list[Task], num_returns: int, timeout: float) -> tuple[list[Task], None]:
        until = self.now + timeout
        self._go_on()
        while self.now < until and all(task.outcome is None for task in tasks):
            self.sleep(TICK_S)
        return [task for task in tasks if task.outcome is not None][:num_returns], None

    def get(self, task: Task) -> Any:
        if isinstance(task.outcome, Exception):
            raise task.outcome
        return task.outcome

    def cancel(self, task: Task, force: bool) -> None:
        from ray import exceptions

        if task in self._queue:
            self._queue.remove(task)
        elif task.outcome is None and task.node is not None and not task.node.is_silent:
            task.node.running.remove(task)
        else:
            return
        task.outcome = exceptions.TaskCancelledError()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < LONGEST_S, "it does not end"
        self._go_on()

    def _function(self, function: Any, options: dict[str, Any]) -> Any:
        def call(*arguments: Any) -> Any:
            from engine.dispatch import batch_task, ray_executor

            if function is batch_task.warm_up:
                return None
            plans, _ = batch_task.unpack(arguments[1])
            self.dispatched.update(plan.index for plan in plans)
            selector = options.get("label_selector", {}).get(ray_executor.NODE_LABEL, "!in()")
            task = Task(plans, set(selector[4:-1].split(",")))
            self._queue.append(task)
            return task

        return SimpleNamespace(
            remote=call, options=lambda **more: self._function(function, options | more)
        )

    def _go_on(self) -> None:
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()
        for host in [host for host in self.hosts if host.is_alive and not host.is_silent]:
            for task in [task for task in host.running if task.until <= self.now]:
                if task in host.running:  # the node may have gone with another one
                    self._end(task, host)
        for task in list(self._queue):
            free = [
                host
                for host in self.hosts
                if host.is_alive
                and len(host.running) + host.taken < host.slots
                and host.id not in task.barred
            ]
            if free:
                self._queue.remove(task)
                self._begin(task, self._rng.choice(free))

    def _begin(self, task: Task, host: Host) -> None:
        task.node, task.until = host, self.now
        host.running.append(task)
        for plan in task.plans:
            task.until += plan.seconds
            task.how = plan.kind
            if plan.kind == "never ends":
                task.until = LONGEST_S * 2
            if plan.kind != "good":
                return

    def _end(self, task: Task, host: Host) -> None:
        from ray import exceptions

        if task.how == "ends its node":
            self.lose(host)
            return
        host.running.remove(task)
        if task.how == "crashes":
            task.outcome = exceptions.WorkerCrashedError()
        elif task.how == "raises" or host.spoils:
            task.outcome = exceptions.RayTaskError("f", "...", ValueError("bad"))
        else:
            told = [Told(plan.index, "ok") for plan in task.plans]
            task.outcome = told, f"host/{host.id[:8]}", host.id


class Question:
    """What a fake node was asked; it answers after two seconds."""

    def __init__(self, ray: FakeRay, node: Node) -> None:
        self._ray = ray
        self._answer_at = ray.now + 2
        (self._host,) = [host for host in ray.hosts if host.id == node.id]

    def verdict(self) -> str | None:
        if self._host.is_silent or self._ray.now < self._answer_at:
            return None
        return self._host.problem


def carry_out(
    ray: FakeRay, limits: Any, batches: Sequence[Batch], stop: Any, asks: bool = True
) -> list[Told]:
    """Return what a ``RayExecutor`` makes of batches on a cluster that only pretends.

    Args:
        ray: The cluster, with the nodes that were asked before.
        limits: Attempts and time limits.
        batches: The work.
        stop: Ends it early.
        asks: Whether nodes that join are asked.
    """
    from engine.dispatch import ray_executor

    def clock() -> float:
        return ray.now

    def nodes() -> list[Node]:
        return [Node(h.id, "host", {"CPU": float(h.slots)}) for h in ray.hosts if h.is_alive]

    def flight(*arguments: Any) -> Flight[Any, Any]:
        return Flight(*arguments, clock=clock)

    def watch(*arguments: Any) -> StallWatch:
        return StallWatch(*arguments, clock=clock)

    with mock.patch.multiple(
        ray_executor,
        ray=ray,
        Flight=flight,
        StallWatch=watch,
        has_begun=ray.has_begun,
        forget=lambda name: None,
        time=SimpleNamespace(monotonic=clock, sleep=ray.sleep),
    ):
        question = (lambda node: Question(ray, node)) if asks else None
        roster = Roster(nodes, question, nodes(), ray.notes.append, clock)
        executor = ray_executor.RayExecutor(limits, tell=ray.notes.append, roster=roster)
        groups = executor.run(object(), batches, stop)  # type: ignore[arg-type]
        return [told for group in groups for told in group]
