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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import ray
from ray import exceptions
from ray.cloudpickle import register_pickle_by_value
from threadpoolctl import threadpool_limits

from engine.dispatch.deadline import deadline
from engine.dispatch.executor import (
    Batch,
    Context,
    Limits,
    PlanT,
    ResultT,
    after_failure,
)
from populations.genome import Genome

# Share of batches that wait at the workers beyond the number of slots, so that none runs dry.
SURPLUS = 0.1
SLOTS_EVERY_S = 2.0
POLL_S = 0.25
# The driver steps in where a worker cannot even end itself; a batch may have waited for another.
DRIVER_PATIENCE = 2.5

LOST = (exceptions.NodeDiedError, exceptions.ObjectLostError, exceptions.TaskCancelledError)
CRASHED = (
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
    exceptions.RaySystemError,
    exceptions.RuntimeEnvSetupError,
)
# What pickling raises for, say, a plug-in that keeps a lock or an open file.
UNSENDABLE = (TypeError, AttributeError, ValueError, pickle.PicklingError)


class RayExecutor:
    """Carries out batches on the Ray cluster that this process is connected to.

    Args:
        limits: Attempts and time limits.
        plugins: Modules whose classes are sent to the workers by value.
        preload: Names of modules that workers import while the driver still prepares the work.
    """

    def __init__(
        self, limits: Limits, plugins: Sequence[ModuleType] = (), preload: Sequence[str] = ()
    ) -> None:
        self._limits = limits
        self._task: Any = ray.remote(num_cpus=1, max_retries=0, retry_exceptions=False)(run_batch)
        self._context: tuple[object, ray.ObjectRef[Any]] | None = None
        self._slots, self._slots_at = 1, -SLOTS_EVERY_S
        task = ray.remote(num_cpus=1, max_retries=0)(warm_up)
        self._warm_up = [task.remote(tuple(preload)) for _ in range(self.n_workers)]
        for module in plugins:
            register_pickle_by_value(module)  # type: ignore[no-untyped-call]  # Ray has no types here

    @property
    def n_workers(self) -> int:
        """CPU slots of the cluster, read again every few seconds: nodes may come and go."""
        now = time.monotonic()
        if now - self._slots_at >= SLOTS_EVERY_S:
            resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # nor here
            self._slots = max(1, int(resources.get("CPU", 0)))
            self._slots_at = now
        return self._slots

    def run(
        self,
        context: Context[PlanT, ResultT],
        batches: Sequence[Batch[PlanT]],
        stop: threading.Event,
    ) -> Iterator[list[ResultT]]:
        """Yield the results of each batch as it finishes; see ``Executor``."""
        shared = self._share(context)
        queue = deque(batches)
        flight: dict[ray.ObjectRef[Any], tuple[Batch[PlanT], float]] = {}
        while flight or (queue and not stop.is_set()):
            window = self.n_workers + max(1, round(self.n_workers * SURPLUS))
            while queue and len(flight) < window and not stop.is_set():
                batch = queue.popleft()
                try:
                    reference = self._task.remote(
                        shared, batch.plans, dict(batch.genomes), self._limits.task_timeout_s
                    )
                except UNSENDABLE as error:
                    again, results = self._after_refusal(batch, error)
                    queue.extendleft(reversed(again))
                    if results:
                        yield results
                    continue
                flight[reference] = (batch, time.monotonic())
            self._cancel_overdue(flight)
            waiting = list(flight)
            if not waiting:
                continue  # all of it was refused
            if not ray.wait(waiting, num_returns=1, timeout=POLL_S)[0]:
                continue
            for reference in ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]:
                batch, _ = flight.pop(reference)
                again, results = self._collect(reference, batch)
                queue.extendleft(reversed(again))
                if results:
                    yield results

    def _share(self, context: object) -> ray.ObjectRef[Any]:
        """Put the context into the object store, once per run."""
        if self._context is None or self._context[0] is not context:
            self._context = (context, ray.put(context))
        return self._context[1]

    def _collect(
        self, reference: ray.ObjectRef[Any], batch: Batch[PlanT]
    ) -> tuple[list[Batch[PlanT]], list[Any]]:
        """Return batches to dispatch again, and results to report."""
        attempts = self._limits.attempts
        try:
            results, node = ray.get(reference)
        except LOST as error:
            return self._after_loss(batch, f"{type(error).__name__}: the node was lost")
        except exceptions.RayTaskError as error:  # before the next: it may be of both classes
            cause = error.cause if isinstance(error.cause, BaseException) else error
            reason = str(cause).partition("\n")[0]  # Ray appends the worker's traceback
            return after_failure(batch, f"{type(cause).__name__}: {reason}", attempts)
        except CRASHED as error:
            return after_failure(batch, f"{type(error).__name__}: the worker died", attempts)
        tries = 1 + batch.attempts + batch.losses
        return [], [replace(result, node=node, attempts=tries) for result in results]

    def _after_refusal(
        self, batch: Batch[PlanT], error: Exception
    ) -> tuple[list[Batch[PlanT]], list[Any]]:
        """Decide what becomes of a batch that cannot be pickled; trying again would not help."""
        reason = error.__cause__ or error  # Ray wraps it in a page of advice
        return after_failure(batch, f"it cannot be sent to a worker: {reason}", attempts=1)

    def _after_loss(self, batch: Batch[PlanT], reason: str) -> tuple[list[Batch[PlanT]], list[Any]]:
        lost = replace(batch, losses=batch.losses + 1)
        if lost.losses < self._limits.loss_attempts:
            return [lost], []
        return [], lost.abandoned("lost", f"{reason} {lost.losses} times")

    def _cancel_overdue(self, flight: dict[ray.ObjectRef[Any], tuple[Batch[PlanT], float]]) -> None:
        """Cancel batches whose own worker did not end them; they come back as lost."""
        limit = hard_limit_s(self._limits.task_timeout_s) * DRIVER_PATIENCE
        for reference, (batch, started) in list(flight.items()):
            if time.monotonic() - started > limit:
                flight[reference] = (batch, time.monotonic())
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """Drop what this executor holds in the object store; the session is closed elsewhere."""
        self._context = None


def warm_up(modules: Sequence[str]) -> None:
    """Import in a worker what its batches will need; torch takes more than a second."""
    for name in modules:
        importlib.import_module(name)


def hard_limit_s(timeout_s: float) -> float:
    """Return the seconds after which a worker ends itself, if its batch ignores the time limit."""
    return timeout_s * 1.2 + 5


def run_batch(
    context: Context[PlanT, ResultT],
    plans: Sequence[PlanT],
    genomes: Mapping[str, Genome],
    timeout_s: float,
) -> tuple[list[ResultT], str]:
    """Carry out a batch in a worker, and return its results and what the node is called.

    The time limit counts here and not in the driver, where it would count the time in the queue:
    SIGALRM raises in Python code, and if the batch is stuck in native code, faulthandler's own
    thread ends the process.

    Raises:
        BatchTimeoutError: The batch took longer than ``timeout_s``.
    """
    faulthandler.dump_traceback_later(hard_limit_s(timeout_s), exit=True)
    try:
        with deadline(timeout_s), threadpool_limits(1):
            return context.work(plans, genomes), node_name()
    finally:
        faulthandler.cancel_dump_traceback_later()


def node_name() -> str:
    """Return the name of this host and the beginning of Ray's id: nodes may share a host."""
    return f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"
