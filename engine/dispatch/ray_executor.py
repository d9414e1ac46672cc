"""Batches as Ray tasks. All retry policy is here: Ray's own retries are off.

Ray's retries would not show on the leaderboard, go back to the same host, and after an
out-of-memory kill never end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import ray
from ray import exceptions
from ray.cloudpickle import register_pickle_by_value
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.dispatch.batch_task import hard_limit_s, pack, run_batch, warm_up
from engine.dispatch.begun import forget, has_begun
from engine.dispatch.executor import Batch, Context, Limits, PlanT, ResultT
from engine.dispatch.isolation import after_failure, after_loss, after_silence, after_success
from engine.dispatch.nodes import working_nodes
from engine.dispatch.roster import Roster
from engine.dispatch.speculation import Flight
from engine.dispatch.stall import StallWatch
from engine.errors import DispatchError
from populations.reasons import shortened, told

NODE_LABEL = "ray.io/node-id"
POLL_S = 0.25
# The driver steps in where a worker cannot even end itself. Ray does not take batches exactly in
# their order, so that one may have waited for another first.
DRIVER_PATIENCE = 2.5

LOST = (
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.TaskCancelledError,
    exceptions.LocalRayletDiedError,
)
CRASHED = (
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
    exceptions.RaySystemError,
    exceptions.RuntimeEnvSetupError,
)
# Ray moves objects to the disk where memory is short, so that the disk is full as well.
FULL = (exceptions.OutOfDiskError, exceptions.ObjectStoreFullError)


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
        self._answered: dict[str, float] = {}  # when nodes answered last
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
            self._answered,
        )
        watch = StallWatch(self._limits.stall_timeout_s, self._tell)
        while flight or (queue and not stop.is_set()):
            arrived = self._send(shared, queue, flight, stop)
            if not stop.is_set():  # also with a queue: all that is in flight may be late
                arrived += self._copy_late(shared, queue, flight)
            arrived += self._give_up_overdue(flight, queue)
            arrived += self._receive(flight, queue, 0 if arrived else POLL_S)
            if arrived:
                yield arrived  # together: whoever keeps results waits for a disk each time
                watch.progress()  # after it: what the driver does with results is no stall
            else:
                watch.look(flight.waiting, len(queue), ray.nodes)

        self._durations = flight.durations()

    def _send(
        self,
        shared: ray.ObjectRef[Any],
        queue: deque[Batch[PlanT]],
        flight: Flight[PlanT, ray.ObjectRef[Any]],
        stop: threading.Event,
    ) -> list[Any]:
        """Dispatch what there is room for, and return the results of what cannot be sent."""
        found: list[Any] = []
        while queue and not stop.is_set() and self._has_room(flight):
            batch = queue.popleft()
            try:
                packed = pack(batch)
            except Exception as error:  # noqa: BLE001  # pickling runs code of the user's own
                found += self._refuse(batch, error, queue)
            else:
                flight.add(self._dispatch(shared, packed), batch)
        self._n_late += flight.look_for_late()
        return found

    def _has_room(self, flight: Flight[PlanT, ray.ObjectRef[Any]]) -> bool:
        """Return whether to dispatch another batch; never while there is no node for it."""
        return self._roster.slots > 0 and flight.has_room(self.n_workers)

    def _share(self, context: object) -> ray.ObjectRef[Any]:
        """Put the context into the object store, once per run."""
        if self._context is None or self._context[0] is not context:
            try:
                self._context = (context, ray.put(context))
            except FULL as error:
                raise store_is_full("this machine") from error
        return self._context[1]

    def _dispatch(
        self, shared: ray.ObjectRef[Any], packed: bytes, node: str | None = None
    ) -> ray.ObjectRef[Any]:
        """Hand a packed batch to Ray, if need be with a node that it should rather run on."""
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
        arguments = (shared, packed, self._limits.task_timeout_s)
        try:
            reference: ray.ObjectRef[Any] = task.remote(*arguments)
        except FULL as error:
            raise store_is_full("this machine") from error
        return reference

    def _copy_late(
        self,
        shared: ray.ObjectRef[Any],
        queue: deque[Batch[PlanT]],
        flight: Flight[PlanT, ray.ObjectRef[Any]],
    ) -> list[Any]:
        """Start once more what takes too long, as far as there are idle slots."""
        found: list[Any] = []
        while late := flight.to_copy(self._roster.slots):
            original, batch, node = late
            try:
                packed = pack(batch)
            except Exception as error:  # noqa: BLE001  # as above, though it was sent before
                ray.cancel(original, force=True)
                flight.failed(original)
                found += self._refuse(batch, error, queue)
            else:
                flight.add_copy(self._dispatch(shared, packed, node), original, node)
        return found

    def _receive(
        self,
        flight: Flight[PlanT, ray.ObjectRef[Any]],
        queue: deque[Batch[PlanT]],
        timeout_s: float,
    ) -> list[Any]:
        """Wait for outcomes, and return the results of all that are there."""
        waiting = flight.references()
        if not waiting:
            if queue and self._roster.slots == 0:
                time.sleep(timeout_s)
            return []
        if not ray.wait(waiting, num_returns=1, timeout=timeout_s)[0]:
            return []
        ready = ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        ready_at = time.monotonic()
        found: list[Any] = []
        for reference in ready:
            if reference in flight:  # or else its twin was faster
                again, results = self._collect(reference, flight, ready_at)
                queue.extendleft(reversed(again))
                found += results
        return found

    def _collect(
        self,
        reference: ray.ObjectRef[Any],
        flight: Flight[PlanT, ray.ObjectRef[Any]],
        ready_at: float,
    ) -> tuple[list[Batch[PlanT]], list[Any]]:
        """Return batches to dispatch next, and results to report."""
        batch = flight.batch(reference)
        try:
            results, node, node_id = ray.get(reference)
        except FULL as error:  # before the next: it may be of both classes
            raise store_is_full("a node") from error
        except exceptions.RayError as error:
            forget(reference.task_id().hex())  # a worker that died could not
            is_strange = self._roster.is_strange(flight.sent_at(reference), ready_at)
            decision = self._after_error(batch, error, is_strange)
            return decision if flight.failed(reference) else ([], [])
        if not self._roster.trusts(node_id):
            reason = "the node may not be used"
            decision = after_loss(batch, reason, self._limits.loss_attempts)
            return decision if flight.failed(reference) else ([], [])
        twin = flight.answered(reference, node_id)
        if twin is not None:
            ray.cancel(twin, force=True)
        tries = 1 + batch.failures
        return after_success(batch), [replace(r, node=node, attempts=tries) for r in results]

    def _after_error(
        self, batch: Batch[PlanT], error: exceptions.RayError, is_strange: bool
    ) -> tuple[list[Batch[PlanT]], list[Any]]:
        """Decide what becomes of a batch that gave no results.

        Args:
            batch: The batch.
            error: Why.
            is_strange: Whether that may be the fault of a node which gets nothing from now on.
        """
        limits = self._limits
        if isinstance(error, LOST):
            reason = f"{type(error).__name__}: the node was lost"
            return after_loss(batch, reason, limits.loss_attempts)
        if is_strange and batch.losses + 1 < limits.loss_attempts:
            return [replace(batch, losses=batch.losses + 1)], []  # but not without end
        if isinstance(error, CRASHED) and not isinstance(error, exceptions.RayTaskError):
            reason = f"{type(error).__name__}: the worker died"
        else:
            reason = reason_of(error)
        return after_failure(batch, reason, limits.attempts)

    def _refuse(
        self, batch: Batch[PlanT], error: Exception, queue: deque[Batch[PlanT]]
    ) -> list[Any]:
        """Queue the parts of a batch that cannot be pickled; trying again would not help."""
        reason = f"it cannot be sent to a worker: {told(error)}"
        again, results = after_failure(batch, reason, attempts=1)
        queue.extendleft(reversed(again))
        return results

    def _give_up_overdue(
        self, flight: Flight[PlanT, ray.ObjectRef[Any]], queue: deque[Batch[PlanT]]
    ) -> list[Any]:
        """Cancel batches whose own worker did not end them, without waiting for a reply."""
        found: list[Any] = []
        limit_s = hard_limit_s(self._limits.task_timeout_s) * DRIVER_PATIENCE
        for reference in flight.overdue(limit_s, self._roster.slots):
            if not has_begun(reference.task_id().hex()):
                flight.waits(reference)  # somebody else's job may have all workers
                continue
            batch = flight.batch(reference)
            ray.cancel(reference, force=True)
            forget(reference.task_id().hex())
            if flight.failed(reference):
                reason = f"no answer within {limit_s:g} s"
                again, results = after_silence(batch, reason, self._limits.loss_attempts)
                queue.extendleft(reversed(again))
                found += results
        return found

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


def reason_of(error: exceptions.RayError) -> str:
    """Return class and first line of what a task raised: Ray appends the worker's traceback."""
    cause = getattr(error, "cause", None)
    known = cause if isinstance(cause, BaseException) else error
    try:
        text = str(known).partition("\n")[0]
    except Exception:  # noqa: BLE001  # an error of the user's own may be unable to say what it is
        text = ""
    return shortened(f"{type(known).__name__}: {text}")
