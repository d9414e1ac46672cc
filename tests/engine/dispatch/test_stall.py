"""When a run that waits says so, and what it says."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from engine.config import DispatchConfig
from engine.dispatch.executor import Batch
from engine.dispatch.stall import StallWatch, Waiting, node_names, notice


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def node(name: str, slots: float, alive: bool = True) -> dict[str, Any]:
    """Return what ``ray.nodes`` tells of a node, of which a lost one has no resources."""
    return {
        "NodeID": f"{name}0123456789",
        "NodeManagerHostname": name,
        "Alive": alive,
        "Resources": {"CPU": slots, "memory": 1.0} if alive and slots else {},
    }


def test_a_notice_comes_after_the_timeout_and_again_after_each() -> None:
    clock, notes, asked = Clock(), [], []
    watch = StallWatch(120, notes.append, clock)
    told = []

    def nodes() -> list[dict[str, Any]]:
        asked.append(clock.now)
        return [node("a", 2.0)]

    for second in range(1, 601):
        clock.now = 1000.0 + second
        before = len(notes)
        watch.look(lambda: [Waiting(1000.0)], 0, nodes)
        told += [second] * (len(notes) - before)
    assert told == [120, 240, 360, 480, 600]
    assert asked == [1000.0 + second for second in told]
    assert notes[1] == (
        "no result for 0:04:00: waiting for 1 batch, the longest for 0:04:00; "
        "nodes: a/a0123456 (2 slots)"
    )


def test_a_result_starts_the_count_again() -> None:
    clock, notes = Clock(), []
    watch = StallWatch(120, notes.append, clock)
    for second in range(0, 1200, 100):
        clock.now = 1000.0 + second
        watch.progress()
        clock.now += 99
        watch.look(lambda: [Waiting(1000.0)], 0, lambda: [])
    assert notes == []


def test_a_notice_says_how_many_batches_where_and_since_when() -> None:
    waiting = [Waiting(900.0, "a/1"), Waiting(950.0, "b/2"), Waiting(960.0, "a/1"), Waiting(980.0)]
    assert notice(waiting, 7, ["a/1 (lost)", "b/2 (2 slots)"], now=1020.0, silent_s=60) == (
        "no result for 0:01:00: waiting for 4 batches (2 sent to a/1, 1 sent to b/2), the longest "
        "for 0:02:00; 7 more not sent yet; nodes: a/1 (lost), b/2 (2 slots)"
    )
    assert notice([Waiting(960.0)], 0, [], now=1020.0, silent_s=60) == (
        "no result for 0:01:00: waiting for 1 batch, the longest for 0:01:00; nodes: none"
    )


def test_lost_nodes_come_first_and_of_many_the_number_is_told() -> None:
    nodes = [node("head", 0), *(node(f"n{i}", 4.0) for i in range(8)), node("gone", 4.0, False)]
    names = node_names(nodes)
    assert names[:2] == ["gone/gone0123 (lost)", "n0/n0012345 (4 slots)"]
    assert len(names) == 9
    text = notice([Waiting(0.0)], 0, names, now=1.0, silent_s=1.0)
    assert text.endswith("n6/n6012345 (4 slots) and 1 more")


@dataclass(frozen=True)
class Nap:
    """A plan to sleep, which is its own result."""

    seconds: float
    node: str = ""
    attempts: int = 0

    needs = ()
    phase: str = "naps"


class Naps:
    """A context that carries out naps."""

    def work(self, plans: Sequence[Nap], genomes: Mapping[str, Any]) -> list[Nap]:
        for plan in plans:
            time.sleep(plan.seconds)
        return list(plans)


@pytest.mark.ray
def test_a_run_on_ray_says_what_it_waits_for(ray_cluster: None) -> None:
    from engine.dispatch.ray_executor import RayExecutor

    notes: list[str] = []
    limits = DispatchConfig(stall_timeout_s=1.0)
    executor = RayExecutor(limits, [sys.modules[__name__]], tell=notes.append)
    batches = [Batch((Nap(3.5),), {})]
    done = list(executor.run(Naps(), batches, threading.Event()))
    executor.close()
    assert [[nap.seconds for nap in results] for results in done] == [[3.5]]
    assert len(notes) >= 2
    for text in notes:
        assert text.startswith("no result for 0:00:0")
        assert ": waiting for 1 batch, the longest for 0:00:0" in text
        assert f"; nodes: {done[0][0].node} (2 slots)" in text
