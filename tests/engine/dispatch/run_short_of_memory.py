"""A run on Ray that is short of memory, of room in the object store, or of that and of disk.

python run_short_of_memory.py FOLDER monitor|store|disk

FOLDER is for Ray and for the runs, and must have a short path. The last line of the output says, in
JSON, how the run ended. A process of its own, since Ray reads its settings once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import disturbance
import numpy as np
from disturbance import BAD, Faulty, Undisturbed, calls, carry_out, disturb, is_child, nothing

from engine.dispatch import ray_session
from engine.errors import DispatchError

STORE_BYTES = 80 * 2**20
PAYLOAD_BYTES = 60 * 2**20
HOG_BYTES = 2**31
ROOM_BYTES = 3 * 2**29  # less is taken meanwhile by other processes of a busy machine


class Heavy(Faulty):
    """A faultless operator that brings so much along that two of it do not fit in the store."""

    def __init__(self, operator: Any, log: Path) -> None:
        super().__init__(operator, log, nothing)
        self.payload = np.ones(PAYLOAD_BYTES, np.uint8)


def hog(note: Path) -> None:
    """Take memory until somebody ends this process, but not more than is decent."""
    taken = []
    for _ in range(HOG_BYTES // 2**26):
        taken.append(np.ones(2**26, np.uint8))
        note.touch()
        time.sleep(0.1)
    time.sleep(10)


def main(folder: Path, what: str) -> None:
    quiet = disturbance.undisturbed(folder)
    if what == "monitor":
        os.environ |= {"RAY_memory_usage_threshold": f"{threshold():.4f}"}
        found = with_hog(folder, quiet)
    else:
        ray_session.OBJECT_STORE_BYTES = STORE_BYTES
        if what == "disk":
            os.environ |= {"RAY_local_fs_capacity_threshold": "0.000001"}  # as if it were full
        found = with_payloads(folder, quiet)
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def with_hog(folder: Path, quiet: Undisturbed) -> dict[str, Any]:
    """Let one birth take too much memory at its first attempt."""
    log, note = folder / "log", folder / "note"

    def spoil(plan: Any) -> Any:
        if not is_child(plan):
            return plan
        return replace(plan, operator=Faulty(plan.operator, log, partial(hog, note)))

    with ray_session.local_session(2):
        executor = make_executor(quiet)
        watch = disturb(executor, spoil)
        carry_out(folder / "run", quiet.config, executor)
    return {
        "same": disturbance.outcome(folder / "run") == quiet.outcome,
        "noticed after s": watch.noticed_after({BAD}, note.stat().st_mtime),
        "extra": watch.extra,
        "attempts": len(calls(log)),
    }


def with_payloads(folder: Path, quiet: Undisturbed) -> dict[str, Any]:
    """Let all births of a generation bring a payload along; where that ends the run, resume it."""

    def spoil(plan: Any) -> Any:
        if plan.phase == "children" and plan.generation == 1 and plan.index % 4 == 0:
            return replace(plan, operator=Heavy(plan.operator, folder / "log"))
        return plan

    evolution = quiet.config.evolution.model_copy(update={"batch_size": 4})
    config = quiet.config.model_copy(update={"evolution": evolution})
    said, began = "", time.time()
    with ray_session.local_session(2):
        executor = make_executor(quiet)
        watch = disturb(executor, spoil)
        try:
            carry_out(folder / "run", config, executor)
        except DispatchError as error:
            said = str(error)
        stopped = time.time() - began
    if said:
        carry_out(folder / "run", config, None)
    return {
        "same": disturbance.outcome(folder / "run") == quiet.outcome,
        "said": said,
        "seconds": stopped,
        "extra": watch.extra,
    }


def make_executor(quiet: Undisturbed) -> Any:
    from engine.dispatch.ray_executor import RayExecutor

    return RayExecutor(quiet.config.dispatch, [disturbance, sys.modules["__main__"]])


def threshold() -> float:
    """Return the share of this machine's memory that leaves some room to what is used now."""
    pairs = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {pair[0].rstrip(":"): int(pair[1]) for pair in pairs}
    total, free = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    return (total - free + ROOM_BYTES) / total


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
