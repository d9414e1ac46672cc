"""What is in flight, which of it is late, and where a late batch is started once more.

A silent machine is noticed by Ray after a minute, and its tasks fail after seven; a machine that
is merely slow is never noticed. So a batch that takes much longer than the others is started a
second time, on a node that has answered since. Both copies give the same results: the first answer
counts. Knows nothing of Ray: a reference is whatever stands for a dispatched batch.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Generic, TypeVar

from engine.dispatch.executor import Batch, PlanT
from engine.dispatch.stall import Waiting

ReferenceT = TypeVar("ReferenceT", bound=Hashable)

# Share of batches that wait at the workers beyond the number of slots, so that none runs dry.
SURPLUS = 0.1
# A batch is never late before this: a second copy costs a worker process, which takes seconds.
MINIMUM_S = 5.0
# Finished batches that it takes to tell what is usual.
SAMPLES = 3
# The usual is that of the last batches, and looked at not more often than this.
KEPT = 200
LOOK_EVERY_S = 0.2


@dataclass(eq=False)
class _Attempt(Generic[PlanT, ReferenceT]):
    """One dispatch that has not answered.

    Attributes:
        batch: What was sent.
        started: When.
        due_from: Since when no more than there are workers are ahead of it, so that it should run;
            None while it may wait for others.
        is_late: Whether it has taken much longer than the others.
        node: Where it was asked to run.
        twin: The other dispatch of the same batch, while that has not answered either.
    """

    batch: Batch[PlanT]
    started: float
    due_from: float | None = None
    is_late: bool = False
    node: str | None = None
    twin: ReferenceT | None = None


class Flight(Generic[PlanT, ReferenceT]):
    """The dispatches of one phase that have not answered, oldest first.

    Args:
        factor: A batch is late once it takes so many times the median of those of its phase that
            finished, per plan; 0: none ever is.
        earlier: Seconds per plan that batches took in earlier flights, by phase. They tell what is
            usual until enough of a phase have finished in this one.
        at_most_s: Seconds after which a batch is late where nothing tells what is usual.
        answered: When a node answered last, by node, in earlier flights too; kept up to date.
        clock: Seconds since any moment.
    """

    def __init__(
        self,
        factor: float,
        earlier: Mapping[str, Sequence[float]] = MappingProxyType({}),
        at_most_s: float = math.inf,
        answered: dict[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._factor = factor
        self._earlier = earlier
        self._at_most_s = at_most_s
        self._clock = clock
        self._attempts: dict[ReferenceT, _Attempt[PlanT, ReferenceT]] = {}
        self._durations: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._answered = {} if answered is None else answered
        self._n_late = 0
        self._look_at = 0.0

    def __len__(self) -> int:
        """Return the number of dispatches, second copies included."""
        return len(self._attempts)

    def __contains__(self, reference: object) -> bool:
        """Return whether a dispatch has neither answered nor been given up."""
        return reference in self._attempts

    def waiting(self) -> list[Waiting]:
        """Return since when and where dispatches are in flight."""
        return [
            Waiting(attempt.started, attempt.node and attempt.node[:8])
            for attempt in self._attempts.values()
        ]

    def references(self) -> list[ReferenceT]:
        """Return what is in flight."""
        return list(self._attempts)

    def add(self, reference: ReferenceT, batch: Batch[PlanT]) -> None:
        """Note that a batch was dispatched."""
        self._attempts[reference] = _Attempt(batch, self._clock())

    def has_room(self, n_workers: int) -> bool:
        """Return whether another batch may be dispatched.

        Late ones do not count, or else those on a lost machine would fill the window; but no more
        of them than there are workers, or else a slow phase would be dispatched all at once.
        """
        window = n_workers + max(1, round(n_workers * SURPLUS))
        return len(self) - min(self._n_late, n_workers) < window

    def look_for_late(self) -> int:
        """Mark what takes too long by now, and return how many more there are."""
        now = self._clock()
        if self._factor == 0 or now < self._look_at:
            return 0
        self._look_at = now + LOOK_EVERY_S
        usual = self._usual()
        before = self._n_late
        for attempt in self._attempts.values():
            plans, limit_s = attempt.batch.plans, self._at_most_s
            if plans[0].phase in usual:
                limit_s = max(MINIMUM_S, self._factor * usual[plans[0].phase] * len(plans))
            if not attempt.is_late and now - attempt.started > limit_s:
                attempt.is_late = True
                self._n_late += 1
        return self._n_late - before

    def _usual(self) -> dict[str, float]:
        """Return the usual seconds per plan of each phase in flight, where anything tells it.

        Of a phase of which few have finished it is not less than that of the slowest other one: a
        needless copy takes an idle slot and changes nothing, while a silent node may cost minutes.
        """
        durations = self.durations()
        medians = {
            phase: statistics.median(seconds)
            for phase, seconds in durations.items()
            if len(seconds) >= SAMPLES
        }
        if not medians:
            return {}
        slowest = max(medians.values())
        phases = {attempt.batch.plans[0].phase for attempt in self._attempts.values()}
        return {
            phase: medians.get(phase, max([slowest, *durations.get(phase, ())])) for phase in phases
        }

    def durations(self) -> dict[str, Sequence[float]]:
        """Return seconds per plan of the last batches of each phase.

        Earlier flights are included where there are few in this one.
        """
        found: dict[str, Sequence[float]] = dict(self._earlier)
        for phase, seconds in self._durations.items():
            few = found.get(phase, []) if len(seconds) < SAMPLES else []
            found[phase] = [*few, *seconds]
        return found

    def to_copy(self, n_workers: int) -> tuple[ReferenceT, Batch[PlanT], str | None] | None:
        """Return the oldest late batch that may be started once more now.

        There is never more than one copy of a batch, none without a slot that would be idle, and
        none of a plan that ruined a worker when it was alone.

        Returns:
            Its reference, the batch, and the node to prefer; None where there is no such batch.
        """
        if len(self) - self._n_late >= n_workers:
            return None
        for reference, attempt in self._attempts.items():
            batch = attempt.batch
            if attempt.is_late and batch.copies == 0 and batch.attempts == 0:
                return reference, batch, self._good_node(attempt.started)
        return None

    def add_copy(self, reference: ReferenceT, original: ReferenceT, node: str | None) -> None:
        """Note that a batch was dispatched a second time."""
        first = self._attempts[original]
        first.batch = replace(first.batch, copies=first.batch.copies + 1)
        first.twin = reference
        self._attempts[reference] = _Attempt(first.batch, self._clock(), node=node, twin=original)

    def answered(self, reference: ReferenceT, node: str) -> ReferenceT | None:
        """Note that results came from a node, and return the twin, which is of no use any more."""
        attempt = self._remove(reference)
        now = self._clock()
        plans = attempt.batch.plans
        self._durations[plans[0].phase].append((now - attempt.started) / len(plans))
        self._answered[node] = now
        if attempt.twin is not None:
            self._remove(attempt.twin)
        return attempt.twin

    def failed(self, reference: ReferenceT) -> bool:
        """Note that a dispatch came to nothing, and return whether that was the last of its batch.

        While its twin is in flight, nothing is known about the batch.
        """
        attempt = self._remove(reference)
        if attempt.twin is None:
            return True
        self._attempts[attempt.twin].twin = None
        return False

    def batch(self, reference: ReferenceT) -> Batch[PlanT]:
        """Return what was dispatched."""
        return self._attempts[reference].batch

    def sent_at(self, reference: ReferenceT) -> float:
        """Return when something was dispatched."""
        return self._attempts[reference].started

    def overdue(self, limit_s: float, n_workers: int) -> list[ReferenceT]:
        """Return what should have ended by now.

        What is in flight beyond the number of workers waits for the others, and where workers
        leave, that may be much: of each dispatch the time counts in which no more are ahead of it
        than there are workers. Without any it does not count at all.

        Args:
            limit_s: Seconds that a dispatch may take once it is its turn.
            n_workers: How many run at the same time; call this often, with the number of now.
        """
        now = self._clock()
        found = []
        for attempt in islice(self._attempts.values(), n_workers, None):
            attempt.due_from = None
        for reference, attempt in islice(self._attempts.items(), n_workers):
            if attempt.due_from is None:
                attempt.due_from = now
            if now - attempt.due_from > limit_s:
                found.append(reference)
        return found

    def waits(self, reference: ReferenceT) -> None:
        """Note that a dispatch has not begun, though it is its turn: its time counts from now."""
        self._attempts[reference].due_from = self._clock()

    def _remove(self, reference: ReferenceT) -> _Attempt[PlanT, ReferenceT]:
        attempt = self._attempts.pop(reference)
        self._n_late -= attempt.is_late
        return attempt

    def _good_node(self, since: float) -> str | None:
        """Return a node that has answered since, with few copies, or the last one that answered.

        Left to itself, Ray would hand the copy to the silent node again, which has idle slots.
        """
        busy = [attempt.node for attempt in self._attempts.values()]
        good = [(busy.count(node), -at, node) for node, at in self._answered.items() if at > since]
        if good:
            return min(good)[2]
        return max(self._answered, key=self._answered.__getitem__, default=None)
