"""A word where nothing comes back: a run that waits says for what, and since when."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.formatting import format_duration

Clock = Callable[[], float]

NODES_NAMED = 4
"""Nodes that a notice names; of more it tells the number."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that is in flight.

    Attributes:
        since: When it was sent, on the clock of the watch.
        node: Where it was sent to; None where Ray chose and nobody knows yet.
    """

    since: float
    node: str | None = None


class StallWatch:
    """Tells what is waited for, whenever nothing has come back for a while.

    Call :meth:`look` in the waiting loop, as often as it turns, and :meth:`progress` whenever a
    result arrives.

    Args:
        timeout_s: Seconds without a result after which there is a notice, and between two notices.
        note: Told the notice, one line.
        clock: Seconds from any origin.
    """

    def __init__(
        self, timeout_s: float, note: Callable[[str], None], clock: Clock = time.monotonic
    ) -> None:
        self._timeout_s = timeout_s
        self._note = note
        self._clock = clock
        self._progress_at = self._noted_at = clock()

    def progress(self) -> None:
        """Count from now on: a result has arrived, or work has begun."""
        self._progress_at = self._noted_at = self._clock()

    def look(self, waiting: Iterable[Waiting], n_queued: int, n_slots: int) -> None:
        """Tell what is waited for, if it is time to.

        Args:
            waiting: Batches that are in flight.
            n_queued: Batches that are not sent yet.
            n_slots: Workers that there are.
        """
        now = self._clock()
        if now - self._noted_at < self._timeout_s:
            return
        self._noted_at = now
        self._note(notice(list(waiting), n_queued, n_slots, now, now - self._progress_at))


def notice(waiting: list[Waiting], n_queued: int, n_slots: int, now: float, silent_s: float) -> str:
    """Return what is waited for, as one line.

    Args:
        waiting: Batches that are in flight.
        n_queued: Batches that are not sent yet.
        n_slots: Workers that there are.
        now: The time on the clock of ``waiting``.
        silent_s: Seconds since the last result.
    """
    text = f"no result for {format_duration(silent_s)}: waiting for {_batches(len(waiting))}"
    if waiting:
        longest = format_duration(now - min(batch.since for batch in waiting))
        text += f" {_places(waiting)}, the longest for {longest}"
    if n_queued:
        text += f"; {n_queued} more not sent yet"
    return f"{text}; workers: {n_slots}"


def _batches(number: int) -> str:
    return "1 batch" if number == 1 else f"{number} batches"


def _places(waiting: list[Waiting]) -> str:
    """Return where batches were sent to, the fullest nodes first."""
    counts = Counter(batch.node for batch in waiting if batch.node is not None)
    n_unknown = sum(batch.node is None for batch in waiting)
    if not counts:
        return "on nodes that are not known"
    places = [f"{number} on {node}" for node, number in counts.most_common(NODES_NAMED)]
    if len(counts) > NODES_NAMED:
        n_others = sum(counts.values()) - sum(n for _, n in counts.most_common(NODES_NAMED))
        places.append(f"{n_others} on {len(counts) - NODES_NAMED} other nodes")
    if n_unknown:
        places.append(f"{n_unknown} on nodes that are not known")
    return f"({', '.join(places)})"
