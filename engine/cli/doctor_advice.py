"""What the doctor says of a cluster that works, but could be better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.dispatch.roster import Node

GIB = 2**30
MEMORY_PER_SLOT = 0.3 * GIB
"""A worker that has imported torch takes 0.2 GiB, besides what it works on."""
OBJECT_STORE = 100 * 2**20
"""Teachers' values and states of a run lie there, and batches in flight."""
CLOCK_S = 1.0
"""Apart from that, nothing is compared that machines say of the time."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def of_node(node: Node, facts: Mapping[str, Any], ahead_s: float | None) -> list[str]:
    """Return what could be better on a node.

    Args:
        node: The node.
        facts: What it answered to ``probe.facts``.
        ahead_s: Seconds that its clock is ahead of ours; None: not known.
    """
    found = []
    if facts["threads"] != 1:
        found.append(
            f"would compute with {facts['threads']} threads per worker, which every batch has to "
            "undo: start Ray there with OMP_NUM_THREADS=1"
        )
    slots, memory = node.resources["CPU"], node.resources.get("memory", 0)
    if memory < slots * MEMORY_PER_SLOT:
        found.append(
            f"has {memory / slots / GIB:.2f} GiB of memory per slot, and a worker needs about "
            f"{MEMORY_PER_SLOT / GIB:g}: start Ray there with --num-cpus="
            f"{max(1, int(memory / MEMORY_PER_SLOT))}"
        )
    store = node.resources.get("object_store_memory", 0)
    if store < OBJECT_STORE:
        found.append(
            f"has an object store of {store / 2**20:.0f} MiB: start Ray there with "
            f"--object-store-memory={2 * OBJECT_STORE}"
        )
    if ahead_s is not None and abs(ahead_s) > CLOCK_S:
        side = "ahead of" if ahead_s > 0 else "behind"
        found.append(
            f"has a clock {abs(ahead_s):.1f} s {side} ours: times in its logs mislead, and TLS may "
            "fail: set it by NTP"
        )
    return [f"node {node.name} {text}" for text in found]


def of_access(asks_for_token: bool, uses_tls: bool, n_hosts: int, dashboard: str) -> list[str]:
    """Return who can get in, and what could be better about that.

    Args:
        asks_for_token: Whether all nodes ask for a token.
        uses_tls: Whether they speak TLS.
        n_hosts: Number of machines.
        dashboard: ``host:port`` of the dashboard, empty where there is none.
    """
    token = "asks for a token" if asks_for_token else "asks nobody for a token"
    found = [f"Ray {token}, with{'' if uses_tls else 'out'} TLS"]
    if asks_for_token and not uses_tls and n_hosts > 1:
        found.append("the token is readable by whoever listens between the hosts: see RAY_USE_TLS")
    host = dashboard.rpartition(":")[0].strip("[]")
    if host and host not in LOOPBACK:
        found.append(
            f"the dashboard listens at {dashboard}, for others as well: start the head with "
            "--dashboard-host=127.0.0.1 and go there through SSH"
        )
    return found


def of_all(
    cluster: Sequence[Node],
    facts: Sequence[Mapping[str, Any]],
    clocks: Sequence[float | None],
    uses_tls: bool,
    dashboard: str,
) -> list[str]:
    """Return a line per thing that could be better, after one on who can get in.

    Args:
        cluster: The nodes.
        facts: What each answered; empty: nothing.
        clocks: Seconds that each is ahead; None: not known.
        uses_tls: Whether Ray speaks TLS.
        dashboard: ``host:port`` of the dashboard, empty where there is none.
    """
    found = []
    if known := [one for one in facts if one]:
        n_hosts = len({node.host for node in cluster})
        found += of_access(all(one["token"] for one in known), uses_tls, n_hosts, dashboard)
    for node, one, ahead_s in zip(cluster, facts, clocks, strict=True):
        found += of_node(node, one, ahead_s) if one else []
    return found
