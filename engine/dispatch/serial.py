"""Work in this very process: for debugging, tests, and machines without Ray."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.dispatch.deadline import deadline
from engine.dispatch.executor import Batch, Context, Limits, PlanT, ResultT
from engine.dispatch.isolation import after_failure, after_success
from populations.reasons import told


class SerialExecutor:
    """Carries out one batch after the other.

    Args:
        limits: Attempts and time limits.
    """

    n_workers = 1

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def run(
        self,
        context: Context[PlanT, ResultT],
        batches: Sequence[Batch[PlanT]],
        stop: threading.Event,
    ) -> Iterator[list[ResultT]]:
        """Yield the results of each batch; see ``Executor``."""
        queue = deque(batches)
        while queue and not stop.is_set():
            batch = queue.popleft()
            try:
                with deadline(self._limits.task_timeout_s):
                    results = context.work(batch.plans, batch.genomes)
            # Same boundary as in a Ray task: whatever a batch raises is recorded, not fatal, and
            # an operator that calls sys.exit ends its child and not the run.
            except (Exception, SystemExit) as error:  # noqa: BLE001  # the task boundary
                again, given_up = after_failure(batch, told(error), self._limits.attempts)
                queue.extendleft(reversed(again))
                if given_up:
                    yield given_up
                continue
            queue.extendleft(reversed(after_success(batch)))
            node, attempts = socket.gethostname(), 1 + batch.failures
            yield [replace(result, node=node, attempts=attempts) for result in results]

    def close(self) -> None:
        """Nothing was started."""
