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
        self._trusted = {node.id for node in trusted}  # those that have left may still answer
        self._asked: dict[str, Question] = {}
        self._refused: set[str] = set()
        self._present: dict[str, Node] = {}
        self._looked_at = self._noticed_at = -float("inf")

    @property
    def slots(self) -> int:
        """CPUs of trusted nodes."""
        self._look_again()
        return int(sum(n.resources["CPU"] for n in self._present.values() if n.id in self._trusted))

    @property
    def barred(self) -> frozenset[str]:
        """Ids of the present nodes that nothing may be sent to."""
        self._look_again()
        return frozenset(self._present.keys() - self._trusted)

    @property
    def is_shut(self) -> bool:
        """Whether there are nodes, and none of them may be used."""
        return bool(self.barred) and self.slots == 0

    def trusts(self, node: str) -> bool:
        """Return whether results from a node may be used."""
        if node not in self._trusted:
            self.look()
        return node in self._trusted or self._ask is None

    def is_strange(self, sent_at: float) -> bool:
        """Return whether a dispatch may have run on a node that nobody knew of when it was sent.

        Args:
            sent_at: When, on the clock of the roster.
        """
        if self._ask is not None:
            self.look()
        return sent_at <= self._noticed_at

    def look(self) -> None:
        """Read the nodes again: ask those that are new, and hear what others have answered."""
        self._looked_at = self._clock()
        self._present = {node.id: node for node in self._nodes()}
        for node in self._present.values():
            if node.id in self._trusted or node.id in self._refused:
                continue
            if self._ask is None:
                self._trusted.add(node.id)
                continue
            if node.id not in self._asked:
                self._asked[node.id] = self._ask(node)
                self._noticed_at = self._clock()
            self._hear(node)
        for gone in self._asked.keys() - self._present.keys():
            del self._asked[gone]
        self._refused &= self._present.keys()

    def _hear(self, node: Node) -> None:
        """Decide about a node if it has answered."""
        problem = self._asked[node.id].verdict()
        if problem is None:
            return
        del self._asked[node.id]
        if problem:
            self._refused.add(node.id)
            self._tell(f"no work is sent to node {node.name}, which {problem}")
        else:
            self._trusted.add(node.id)
            self._tell(f"node {node.name} joins with {node.resources['CPU']:g} CPUs")

    def _look_again(self) -> None:
        if self._clock() - self._looked_at >= LOOK_EVERY_S:
            self.look()
