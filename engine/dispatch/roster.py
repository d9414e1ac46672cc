"""Which nodes of a cluster are given work: those that said they would do it as the driver would.

Nodes come and go while a run goes on. One that was not there before is asked, and until it has
answered, and for good if its answer is bad, it is barred: its slots do not count, what is
dispatched keeps away from it, and results of what got there before it was noticed are not used.
Knows nothing of Ray: how nodes are listed and asked is handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

LOOK_EVERY_S = 2.0
# Nodes that have left and whose answers may still be on their way.
GONE_KEPT = 256


@dataclass(frozen=True)
class Node:
    """A node that has CPUs.

    Attributes:
        id: Ray's id.
        host: Name of the machine.
        resources: What Ray may use of it: CPU, memory and object_store_memory in bytes.
    """

    id: str
    host: str
    resources: Mapping[str, float]

    @property
    def name(self) -> str:
        """What the node is called on the leaderboard, too."""
        return f"{self.host}/{self.id[:8]}"


class Question(Protocol):
    """What a node was asked."""

    def verdict(self) -> str | None:
        """Return what keeps the node from taking part, empty for nothing; None: not known yet."""
        ...


@dataclass
class _Barred:
    """A node that gets nothing.

    Attributes:
        since: When it was noticed.
        question: What it was asked; None: its answer was bad.
    """

    since: float
    question: Question | None


class Roster:
    """Keeps account of the nodes of a cluster.

    Args:
        nodes: Lists those that are alive and have CPUs.
        ask: Sends a question to a node without waiting for the answer; None trusts every node.
        trusted: Nodes that were asked before.
        tell: Told once of each node that is barred for good, and of each that joins.
        clock: Seconds since any moment.
    """

    def __init__(
        self,
        nodes: Callable[[], Sequence[Node]],
        ask: Callable[[Node], Question] | None = None,
        trusted: Sequence[Node] = (),
        tell: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = nodes
        self._ask = ask
        self._tell = tell
        self._clock = clock
        self._trusted = {node.id: True for node in trusted}  # in order; some may have left
        self._barred: dict[str, _Barred] = {}
        self._present: dict[str, Node] = {}
        self._looked_at = -float("inf")

    @property
    def slots(self) -> int:
        """CPUs of trusted nodes."""
        self._look_again()
        return int(sum(n.resources["CPU"] for n in self._present.values() if n.id in self._trusted))

    @property
    def barred(self) -> frozenset[str]:
        """Ids of the present nodes that nothing may be sent to."""
        self._look_again()
        return frozenset(self._present.keys() - self._trusted.keys())

    def trusts(self, node: str) -> bool:
        """Return whether results from a node may be used."""
        if self._ask is None:
            return True
        if node not in self._trusted and node not in self._present:
            self.look()  # so that the next batch keeps away from it
        return node in self._trusted

    def is_strange(self, sent_at: float, failed_at: float) -> bool:
        """Return whether a dispatch may have failed on a node that nobody knew when it was sent.

        Only nodes that are barred are meant: one that may be used is not to blame.

        Args:
            sent_at: When, on the clock of the roster.
            failed_at: When its failure was seen; the nodes are read again if that is newer.
        """
        if self._ask is None:
            return False
        if self._looked_at < failed_at:
            self.look()
        return any(sent_at <= node.since for node in self._barred.values())

    def look(self) -> None:
        """Read the nodes again: ask those that are new, and hear what others have answered."""
        self._looked_at = self._clock()
        self._present = {node.id: node for node in self._nodes()}
        self._forget()
        for node in self._present.values():
            if node.id in self._trusted:
                continue
            if self._ask is None:
                self._trusted[node.id] = True
                continue
            if node.id not in self._barred:
                question = self._ask(node)
                self._barred[node.id] = _Barred(self._clock(), question)
            self._hear(node, self._barred[node.id])

    def _forget(self) -> None:
        """Forget nodes that have left: a run may see thousands."""
        for gone in self._barred.keys() - self._present.keys():
            del self._barred[gone]
        for gone in [node for node in self._trusted if node not in self._present][:-GONE_KEPT]:
            del self._trusted[gone]

    def _hear(self, node: Node, barred: _Barred) -> None:
        """Decide about a node if it has answered."""
        problem = barred.question.verdict() if barred.question else None
        if problem is None:
            return
        barred.question = None
        if problem:
            self._tell(f"no work is sent to node {node.name}, which {problem}")
        else:
            del self._barred[node.id]
            self._trusted[node.id] = True
            self._tell(f"node {node.name} joins with {node.resources['CPU']:g} CPUs")

    def _look_again(self) -> None:
        if self._clock() - self._looked_at >= LOOK_EVERY_S:
            self.look()
