"""Batches as Ray tasks. All retry policy is here: Ray's own retries are off.

Ray's retries would not show on the leaderboard, go back to the same host, and after an
out-of-memory kill never end.
"""

from __future__ import annotations

import faulthandler
import importlib
import pickle
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import ray
from ray import cloudpickle, exceptions
from ray.cloudpickle import register_pickle_by_value
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from threadpoolctl import threadpool_limits

from engine.dispatch.deadline import deadline
from engine.dispatch.executor import Batch, Context, Limits, PlanT, ResultT
from engine.dispatch.isolation import after_failure, after_loss, after_silence, after_success
from engine.dispatch.nodes import working_nodes
from engine.dispatch.roster import Roster
from engine.dispatch.speculation import Flight
from engine.dispatch.stall import StallWatch
from engine.errors import DispatchError
from populations.genome import Genome

NODE_LABEL = "ray.io/node-id"
POLL_S = 0.25
# The driver steps in where a worker cannot even end itself. Ray does not take batches exactly in
# their order, so that one may have waited for another first.
DRIVER_PATIENCE = 2.5

LOST = (exceptions.NodeDiedError, exceptions.ObjectLostError, exceptions.TaskCancelledError)
CRASHED = (
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
    exceptions.RaySystemError,
    exceptions.RuntimeEnvSetupError,
)
# Ray moves objects to the disk where memory is short, so that the disk is full as well.
FULL = (exceptions.OutOfDiskError, exceptions.ObjectStoreFullError)
# What pickling raises for, say, a plug-in that keeps a lock or an open file.
UNSENDABLE = (TypeError, AttributeError, ValueError, pickle.PicklingError)


class RayExecutor:
    """Carries out batches on the Ray cluster that this process is connected to.

    Args:
        limits: Attempts and time limits.
        plugins: Modules whose classes are sent to the workers by value.
        preload: Names of modules that workers import while the driver still prepares the work.
        tell: Told what is waited for where nothing comes back for long.
        roster: Which nodes may be used; None takes all there are.
    """

    def __init__(
        self,
        limits: Limits,
        plugins: Sequence[ModuleType] = (),
        preload: Sequence[str] = (),
        tell: Callable[[str], None] = lambda text: None,
        roster: Roster | None = None,
    ) -> None:
        self._limits = limits
        self._tell = tell
        self._task: Any = ray.remote(num_cpus=1, max_retries=0, retry_exceptions=False)(run_batch)
        self._context: tuple[object, ray.ObjectRef[Any]] | None = None
        self._roster = roster or Roster(working_nodes)
        self._n_late = 0
        self._durations: Mapping[str, Sequence[float]] = {}  # seconds per plan, by phase
        task = ray.remote(num_cpus=1, max_retries=0)(warm_up)
        self._warm_up = [task.remote(tuple(preload)) for _ in range(self.n_workers)]
        for module in plugins:
            register_pickle_by_value(module)  # type: ignore[no-untyped-call]  # Ray has no types here

    @property
    def n_workers(self) -> int:
        """CPU slots of the nodes in use, read again every few seconds: nodes may come and go."""
        return max(1, self._roster.slots)

    def run(
        self,
        context: Context[PlanT, ResultT],
        batches: Sequence[Batch[PlanT]],
        stop: threading.Event,
    ) -> Iterator[list[ResultT]]:
        """Yield the results of each batch as it finishes; see ``Executor``.

        Raises:
            DispatchError: The object store of a node is full, and so is its disk.
        """
        shared = self._share(context)
        queue = deque(batches)
        flight: Flight[PlanT, ray.ObjectRef[Any]] = Flight(
            self._limits.speculation,
            self._durations,
            hard_limit_s(self._limits.task_timeout_s),
        )
        watch = StallWatch(self._limits.stall_timeout_s, self._tell)
        while flight or (queue and not stop.is_set()):
            while queue and self._has_room(flight) and not stop.is_set():
                batch = queue.popleft()
                try:
                    flight.add(self._dispatch(shared, batch), batch)
                except UNSENDABLE as error:
                    again, results = self._after_refusal(batch, error)
                    queue.extendleft(reversed(again))
                    if results:
                        yield results
            self._n_late += flight.look_for_late()
            if not stop.is_set():  # also with a queue: all that is in flight may be late
                self._copy_late(shared, flight)
            again, results = self._give_up_overdue(flight)
            queue.extendleft(reversed(again))
            if results:
                yield results
            waiting = flight.references()
            if not waiting:
                if queue and self._roster.is_shut:
                    time.sleep(POLL_S)
                    watch.look([], len(queue), ray.nodes)
                continue  # all of it was refused or given up, or no node may be used yet
            if not ray.wait(waiting, num_returns=1, timeout=POLL_S)[0]:
                watch.look(flight.waiting(), len(queue), ray.nodes)
                continue
            arrived: list[ResultT] = []
            for reference in ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]:
                if reference not in flight:
                    continue  # its twin was faster
                again, results = self._collect(reference, flight)
                queue.extendleft(reversed(again))
                arrived += results
            if arrived:
                yield arrived  # together: whoever keeps results waits for a disk each time
            watch.progress()  # at the end: what the driver does with results is no stall

        self._durations = flight.durations()

    def _has_room(self, flight: Flight[PlanT, ray.ObjectRef[Any]]) -> bool:
        return not self._roster.is_shut and flight.has_room(self.n_workers)

    def _share(self, context: object) -> ray.ObjectRef[Any]:
        """Put the context into the object store, once per run."""
        if self._context is None or self._context[0] is not context:
            try:
                self._context = (context, ray.put(context))
            except FULL as error:
                raise store_is_full("this machine") from error
        return self._context[1]

    def _dispatch(
        self, shared: ray.ObjectRef[Any], batch: Batch[PlanT], node: str | None = None
    ) -> ray.ObjectRef[Any]:
        """Hand a batch to Ray, if need be with a node that it should rather run on."""
        options: dict[str, Any] = {}
        if self._n_late:
            # Tasks that ask for the same may queue behind what Ray asked of a lost machine.
            options["memory"] = self._n_late
        if barred := self._roster.barred:
            # Without spaces: Ray 2.60 takes one for a part of the name, and aborts the process.
            options["label_selector"] = {NODE_LABEL: f"!in({','.join(sorted(barred))})"}
        if node is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        task = self._task.options(**options) if options else self._task
        arguments = (shared, pack(batch), self._limits.task_timeout_s)
        try:
            reference: ray.ObjectRef[Any] = task.remote(*arguments)
        except FULL as error:
            raise store_is_full("this machine") from error
        return reference

    def _copy_late(
        self, shared: ray.ObjectRef[Any], flight: Flight[PlanT, ray.ObjectRef[Any]]
    ) -> None:
        """Start once more what takes too long, as far as there are idle slots."""
        while found := flight.to_copy(self.n_workers):
            original, batch, node = found
            flight.add_copy(self._dispatch(shared, batch, node), original, node)

    def _collect(
        self, reference: ray.ObjectRef[Any], flight: Flight[PlanT, ray.ObjectRef[Any]]
    ) -> tuple[list[Batch[PlanT]], list[Any]]:
        """Return batches to dispatch next, and results to report."""
        batch, sent_at = flight.batch(reference), flight.sent_at(reference)
        attempts = self._limits.attempts
        try:
            results, node, node_id = ray.get(reference)
        except FULL as error:  # before the next: it may be of both classes
            raise store_is_full("a node") from error
        except LOST as error:
            reason = f"{type(error).__name__}: the node was lost"
            decision = after_loss(batch, reason, self._limits.loss_attempts)
        except exceptions.RayTaskError as error:  # before the next: it may be of both classes
            cause = error.cause if isinstance(error.cause, BaseException) else error
            reason = str(cause).partition("\n")[0]  # Ray appends the worker's traceback
            decision = after_failure(batch, f"{type(cause).__name__}: {reason}", attempts)
        except CRASHED as error:
            reason = f"{type(error).__name__}: the worker died"
            decision = after_failure(batch, reason, attempts)
        else:
            if not self._roster.trusts(node_id):
                return ([batch], []) if flight.failed(reference) else ([], [])
            twin = flight.answered(reference, node_id)
            if twin is not None:
                ray.cancel(twin, force=True)
            tries = 1 + batch.failures
            told = [replace(result, node=node, attempts=tries) for result in results]
            return after_success(batch), told
        if self._roster.is_strange(sent_at):
            decision = [batch], []  # the node may be to blame, which gets nothing from now on
        return decision if flight.failed(reference) else ([], [])

    def _after_refusal(
        self, batch: Batch[PlanT], error: Exception
    ) -> tuple[list[Batch[PlanT]], list[Any]]:
        """Decide what becomes of a batch that cannot be pickled; trying again would not help."""
        return after_failure(batch, f"it cannot be sent to a worker: {error}", attempts=1)

    def _give_up_overdue(
        self, flight: Flight[PlanT, ray.ObjectRef[Any]]
    ) -> tuple[list[Batch[PlanT]], list[Any]]:
        """Cancel batches whose own worker did not end them, without waiting for a reply."""
        again, results = [], []
        limit_s = hard_limit_s(self._limits.task_timeout_s) * DRIVER_PATIENCE
        for reference in flight.overdue(limit_s, self.n_workers):
            batch = flight.batch(reference)
            ray.cancel(reference, force=True)
            if flight.failed(reference):
                reason = f"no answer within {limit_s:g} s"
                batches, lost = after_silence(batch, reason, self._limits.loss_attempts)
                again += batches
                results += lost
        return again, results

    def close(self) -> None:
        """Drop what this executor holds in the object store; the session is closed elsewhere."""
        self._context = None


def store_is_full(machine: str) -> DispatchError:
    """Return an error that says what to do; no batch is to blame, and trying again does not help.

    Args:
        machine: Where it happened.
    """
    return DispatchError(
        f"the object store of Ray on {machine} is full, and so is the disk that it moves objects "
        "to; free space in Ray's temporary folder there, or start Ray with a larger "
        "--object-store-memory; what was finished is recorded: go on with 'cultivar resume'"
    )


def warm_up(modules: Sequence[str]) -> None:
    """Import in a worker what its batches will need; torch takes more than a second."""
    for name in modules:
        importlib.import_module(name)


def hard_limit_s(timeout_s: float) -> float:
    """Return the seconds after which a worker ends itself, if its batch ignores the time limit."""
    return timeout_s * 1.2 + 5


def run_batch(
    context: Context[PlanT, ResultT],
    packed: bytes,
    timeout_s: float,
) -> tuple[list[ResultT], str, str]:
    """Carry out a batch in a worker, and return its results, and the node's name and Ray's id.

    The batch is unpacked here: Ray Client would unpack arguments on its server, too, where a plan
    that cannot be unpacked breaks the connection, and with it the run.

    The time limit counts here and not in the driver, where it would count the time in the queue:
    SIGALRM raises in Python code, and if the batch is stuck in native code, faulthandler's own
    thread ends the process.

    Raises:
        BatchTimeoutError: The batch took longer than ``timeout_s``.
    """
    faulthandler.dump_traceback_later(hard_limit_s(timeout_s), exit=True)
    try:
        with deadline(timeout_s), threadpool_limits(1):
            plans, genomes = unpack(packed)
            return context.work(plans, genomes), node_name(), node_id()
    finally:
        faulthandler.cancel_dump_traceback_later()


def pack(batch: Batch[Any]) -> bytes:
    """Return plans and genomes of a batch as they travel to a worker.

    Raises:
        Exception: One of ``UNSENDABLE``: a plan cannot be pickled.
    """
    contents = (batch.plans, dict(batch.genomes))
    packed: bytes = cloudpickle.dumps(contents)  # type: ignore[no-untyped-call]  # nor here
    return packed


def unpack(packed: bytes) -> tuple[Sequence[Any], Mapping[str, Genome]]:
    """Return the plans and genomes of a batch."""
    plans, genomes = cloudpickle.loads(packed)
    return plans, genomes


def node_name() -> str:
    """Return the name of this host and the beginning of Ray's id: nodes may share a host."""
    return f"{socket.gethostname()}/{node_id()[:8]}"


def node_id() -> str:
    """Return Ray's id of this node."""
    found: str = ray.get_runtime_context().get_node_id()
    return found
