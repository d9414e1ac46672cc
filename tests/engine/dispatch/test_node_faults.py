"""Runs whose nodes die, leave, join or fall silent: they end as the undisturbed one."""

from __future__ import annotations

from typing import Any

import pytest
from disturbance import dispatches

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SAME = "same leaderboard, genomes and champion"


def test_runs_whose_nodes_come_and_go_end_as_the_undisturbed_one(in_process, fault_row) -> None:
    found = in_process("run_on_nodes.py")
    assert sorted(found) == ["dies", "falls silent", "joins", "leaves"]
    for name, run in found.items():
        assert run["same"], (name, run)
        assert run["rows"] >= 30
    dies, leaves, joins, silent = (
        found[name] for name in ("dies", "leaves", "joins", "falls silent")
    )
    assert dies["hit"] > 0
    assert dies["extra"] > 0
    assert silent["hit"] > 0
    assert silent["extra"] > 0
    assert joins["by new node"] > 0
    fault_row(
        fault="node dies",
        how="`kill -9` of its raylet, with a birth under way there",
        noticed=_noticed(dies),
        extra=dispatches(dies["extra"]),
        outcome=SAME,
    )
    fault_row(
        fault="node leaves",
        how="its raylet is asked to end, with a birth under way there",
        noticed=_noticed(leaves),
        extra=dispatches(leaves["extra"]),
        outcome=SAME,
    )
    fault_row(
        fault="node joins",
        how="a second node while a run goes on",
        noticed=f"{joins['first birth there after s']:.1f} s from its start to its first birth",
        extra=dispatches(joins["extra"]),
        outcome=f"{SAME}; {joins['by new node']} of {joins['rows']} rows from the new node",
    )
    fault_row(
        fault="node falls silent",
        how="its raylet and workers are stopped, with a birth under way there; Ray's own timings",
        noticed=f"{_noticed(silent)}, as late",
        extra=dispatches(silent["extra"]),
        outcome=SAME,
    )


def _noticed(run: dict[str, Any]) -> str:
    """Return after how long what was under way on the node failed or got a second copy."""
    seconds = run["noticed after s"]
    return "the birth still came to its end" if seconds is None else f"{seconds:.1f} s"
