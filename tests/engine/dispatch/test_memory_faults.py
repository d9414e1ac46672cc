"""Runs that are short of memory, of room in the object store, or of that and of disk."""

from __future__ import annotations

import pytest
from disturbance import dispatches

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SAME = "same leaderboard, genomes and champion"


def test_a_worker_that_ray_kills_for_its_memory(in_process, fault_row) -> None:
    found = in_process("run_short_of_memory.py", "monitor")
    assert found["same"]
    assert found["attempts"] == 2
    assert found["extra"] >= 4  # more if Ray killed the other worker as well
    fault_row(
        fault="worker out of memory: Ray's memory monitor kills it",
        how="2 GiB where 1.5 GiB are left to Ray's threshold, once, in a batch of 8",
        noticed=f"{found['noticed after s']:.1f} s after the last allocation",
        extra=dispatches(found["extra"]),
        outcome=SAME,
    )


def test_a_full_object_store_slows_a_run_down_and_changes_nothing(in_process, fault_row) -> None:
    found = in_process("run_short_of_memory.py", "store")
    assert found["same"]
    assert found["said"] == ""
    fault_row(
        fault="object store full",
        how="batches of 60 MB each, three in flight, in a store of 80 MB",
        noticed="by Ray, which keeps objects on the disk",
        extra=dispatches(found["extra"]),
        outcome=SAME,
    )


def test_a_full_object_store_on_a_full_disk_stops_a_run_with_a_sentence(
    in_process, fault_row
) -> None:
    found = in_process("run_short_of_memory.py", "disk")
    assert found["said"].startswith("the object store of Ray on ")
    assert "free space in Ray's temporary folder" in found["said"]
    assert found["same"]
    fault_row(
        fault="object store full, and the disk too",
        how="the same with a threshold of Ray's that takes the disk for full",
        noticed="the dispatch itself; one sentence",
        extra="what was in flight",
        outcome=f"the run stops; resumed elsewhere, {SAME}",
    )
