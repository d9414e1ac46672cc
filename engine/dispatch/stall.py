"""A word where nothing comes back: a run that waits says for what, and since when."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.formatting import format_duration

Clock = Callable[[], float]

NODES_NAMED = 8
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

    def look(
        self,
        waiting: Callable[[], Iterable[Waiting]],
        n_queued: int,
        nodes: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        """Tell what is waited for, if it is time to.

        Args:
            waiting: Returns the batches that are in flight; only asked if it is time.
            n_queued: Batches that are not sent yet.
            nodes: Returns the nodes of the cluster as ``ray.nodes`` does; only asked if it is time.
        """
        now = self._clock()
        if now - self._noted_at < self._timeout_s:
            return
        self._noted_at = now
        silent_s = now - self._progress_at
        self._note(notice(list(waiting()), n_queued, node_names(nodes()), now, silent_s))


def notice(
    waiting: Sequence[Waiting], n_queued: int, nodes: Sequence[str], now: float, silent_s: float
) -> str:
    """Return what is waited for, as one line.

    Args:
        waiting: Batches that are in flight.
        n_queued: Batches that are not sent yet.
        nodes: What the nodes of the cluster are called.
        now: The time on the clock of ``waiting``.
        silent_s: Seconds since the last result.
    """
    batches = "1 batch" if len(waiting) == 1 else f"{len(waiting)} batches"
    text = f"no result for {format_duration(silent_s)}: waiting for {batches}"
    sent = Counter(batch.node for batch in waiting if batch.node is not None)
    if sent:
        text += f" ({_listed([f'{n} sent to {node}' for node, n in sent.most_common()])})"
    if waiting:
        text += f", the longest for {format_duration(now - min(b.since for b in waiting))}"
    if n_queued:
        text += f"; {n_queued} more not sent yet"
    return f"{text}; nodes: {_listed(nodes) or 'none'}"


def node_names(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return names and slots of nodes, those that are lost first.

    Args:
        nodes: As ``ray.nodes`` returns them.
    """
    names = []
    for node in sorted(nodes, key=lambda node: bool(node["Alive"])):
        slots = int(node["Resources"].get("CPU", 0))
        state = f"{slots} slots" if node["Alive"] else "lost"
        if slots or not node["Alive"]:  # a head without slots does no work
            names.append(f"{node['NodeManagerHostname']}/{node['NodeID'][:8]} ({state})")
    return names


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    text = ", ".join(names[:NODES_NAMED])
    others = len(names) - NODES_NAMED
    return text if others <= 0 else f"{text} and {others} more"
