"""The readers given what the mutator makes, file after file, each in a process of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzzing import zips
from fuzzing.limits import Limits, limit_memory
from fuzzing.readers import LARGE_BOMB, Reader, readers

PATIENCE = 10
"""Seconds on the clock that pass for one of CPU on a busy machine, before a process is given up."""


def attack(reader: Reader, keep: Path, *, files: int, seed: int, limits: Limits) -> dict[str, Any]:
    """Let a reader read so many damaged files.

    Args:
        reader: The reader.
        keep: Folder for the files that crash it.
        files: Number of files.
        seed: Of the files: each is made from it and its number.
        limits: For one file.

    Returns:
        ``counts`` of outcomes, ``crashes`` (a file for each reason), the slowest ``seconds``, the
        largest ``megabytes``.
    """
    keep.mkdir(parents=True, exist_ok=True)
    counts, crashes, slowest, largest = Counter[str](), {}, 0.0, 0.0
    for outcome in _outcomes(reader, files, seed, limits):
        counts[outcome["is"]] += 1
        slowest = max(slowest, outcome.get("seconds", 0.0))
        largest = max(largest, outcome.get("megabytes", 0.0))
        if outcome["is"] == "crash":
            kept = keep / f"{outcome['number']}-{reader.file.replace('/', '-')}"
            kept.write_bytes(reader.mutant(seed, outcome["number"]))
            crashes[outcome["why"]] = str(kept)
    return {"counts": counts, "seconds": slowest, "megabytes": largest, "crashes": crashes}


def _outcomes(reader: Reader, files: int, seed: int, limits: Limits) -> Iterator[dict[str, Any]]:
    """Yield what became of every file, with a new process after each that did not live."""
    number = 0
    while number < files:
        asked = {
            "reader": reader.name, "files": files, "seed": seed, "number": number,
            "seconds": limits.seconds, "megabytes": limits.megabytes,
        }  # fmt: skip
        with (
            tempfile.TemporaryDirectory() as folder,
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [sys.executable, "-m", "fuzzing.mutated", json.dumps(asked)],
                cwd=folder, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, "TMPDIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)},
            ) as process,
        ):  # fmt: skip
            assert process.stdout is not None
            patience = 120.0  # imports
            buffer = b""
            while True:
                ready, _, _ = select.select([process.stdout], [], [], patience)
                chunk = os.read(process.stdout.fileno(), 2**16) if ready else b""
                if not chunk:
                    break
                patience = PATIENCE * limits.seconds
                *complete, buffer = (buffer + chunk).split(b"\n")
                for line in complete:
                    outcome = json.loads(line)
                    if outcome["is"] != "ready":
                        yield outcome
                        number = outcome["number"] + 1
            process.kill()
            process.wait()
            if number < files:
                errors.seek(0)
                told = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                why = (
                    f"took more than {PATIENCE * limits.seconds:g} s"
                    if not ready
                    else f"the process ended with {process.returncode}: {' '.join(told)}"
                )
                yield {"is": "crash", "number": number, "why": why}
                number += 1


def work() -> None:
    """Read files one after the other and tell what became of each, a line of JSON for each."""
    asked = json.loads(sys.argv[1])
    reader = next(reader for reader in readers(LARGE_BOMB) if reader.name == asked["reader"])
    limits = Limits(asked["seconds"], asked["megabytes"])
    warnings.simplefilter("error")
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # readers may print

    def tell(**values: Any) -> None:
        os.write(out, json.dumps(values).encode() + b"\n")

    path = reader.prepare(Path.cwd())
    zips.bomb("", LARGE_BOMB)  # made once
    path.write_bytes(reader.samples()[0])
    reader.read(path)  # a good file; imports what is imported late
    limit_memory()
    tell(**{"is": "ready"})
    for number in range(asked["number"], asked["files"]):
        reader.prepare(Path.cwd())
        path.write_bytes(reader.mutant(asked["seed"], number))
        tell(number=number, **limits.measure(reader.read, path))


if __name__ == "__main__":
    work()
