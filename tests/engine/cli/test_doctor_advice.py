"""What could be better on a cluster that works is said, and nothing of what is good."""

from __future__ import annotations

import re

import pytest

from engine.cli.doctor_advice import of_access, of_all, of_node
from engine.dispatch.roster import Node

GIB = 2**30
GOOD = {"threads": 1, "token": True}
RESOURCES = {"CPU": 4.0, "memory": 8.0 * GIB, "object_store_memory": 200.0 * 2**20}


def node(**resources: float) -> Node:
    return Node("0123456789ab", "host", RESOURCES | resources)


def test_of_a_good_node_nothing_is_said() -> None:
    assert of_node(node(), GOOD, 0.9) == []
    assert of_node(node(), GOOD, None) == []


@pytest.mark.parametrize(
    ("resources", "facts", "ahead_s", "message"),
    [
        ({}, {"threads": 64}, 0.0, "64 threads per worker.* OMP_NUM_THREADS=1"),
        ({"memory": 0.9 * GIB}, {}, 0.0, r"0\.23 GiB of memory per slot.* --num-cpus=3$"),
        ({"memory": 0.1 * GIB}, {}, 0.0, r"0\.03 GiB of memory per slot.* --num-cpus=1$"),
        ({"object_store_memory": 75.0 * 2**20}, {}, 0.0, "of 75 MiB: .*--object-store-memory=2097"),
        ({}, {}, 90.04, r"a clock 90\.0 s ahead of ours"),
        ({}, {}, -2.5, r"a clock 2\.5 s behind ours"),
    ],
)
def test_what_could_be_better_is_said_with_what_to_do(resources, facts, ahead_s, message) -> None:
    (line,) = of_node(node(**resources), GOOD | facts, ahead_s)
    assert line.startswith("node host/01234567 ")
    assert re.search(message, line)


def test_who_can_get_in_is_said() -> None:
    assert of_access(True, False, 1, "") == ["Ray asks for a token, without TLS"]
    assert of_access(True, True, 3, "127.0.0.1:8265") == ["Ray asks for a token, with TLS"]
    assert of_access(False, False, 3, "") == ["Ray asks nobody for a token, without TLS"]
    _, in_clear = of_access(True, False, 2, "[::1]:8265")
    assert "readable by whoever listens" in in_clear
    _, dashboard = of_access(True, True, 2, "10.77.0.1:8265")
    assert "dashboard listens at 10.77.0.1:8265" in dashboard
    assert "--dashboard-host=127.0.0.1" in dashboard


def test_silent_nodes_are_passed_over() -> None:
    two = [node(), node(memory=0.0)]
    assert of_all(two, [GOOD, {}], [0.0, None], True, "") == ["Ray asks for a token, with TLS"]
    assert of_all([node()], [{}], [None], True, "") == []
