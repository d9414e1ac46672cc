"""What a reader may take for one file: memory and CPU, beside what ``trial`` looks for."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzzing.trial import try_file

SPARE_BYTES = 3 * 2**30
"""What a reader may ask for on top of what it has when it begins."""


@dataclass(frozen=True)
class Limits:
    """Limits for one file; what goes beyond them is a crash.

    Attributes:
        seconds: Of CPU.
        megabytes: That may be added to what the process has.
    """

    seconds: float
    megabytes: int

    def measure(self, read: Callable[[Path], object], path: Path) -> dict[str, Any]:
        """Let a reader read a file, and return what became of it and what it took."""
        before, began = _peak_megabytes(reset=True), time.process_time()
        outcome, why = try_file(read, path)
        seconds, added = time.process_time() - began, _peak_megabytes() - before
        if outcome != "crash" and added > self.megabytes:
            outcome, why = "crash", f"took {added:.0f} MB more ({why})"
        if outcome != "crash" and seconds > self.seconds:
            outcome, why = "crash", f"took {seconds:.1f} s ({why})"
        return {"is": outcome, "why": why, "seconds": seconds, "megabytes": added}


def limit_memory() -> None:
    """Let this process have no more than a few GB on top of what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _peak_megabytes(reset: bool = False) -> float:
    """Return the most memory that this process has held, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024
