"""Give damaged and hostile files to every reader, and see that nothing but a clear error comes.

    python scripts/fuzz_readers.py [--files 2000] [--readers NAME ...] [--keep FOLDER]

Every reader works in a process of its own with a limit on its memory. A file that is not rejected
in one sentence, that takes longer than --seconds, more than --megabytes, ends the process, or has
code run counts as a crash; it is kept in the folder. A file is made from the seed and its number.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzzing import zips
from fuzzing.readers import LARGE_BOMB, Reader, readers
from fuzzing.trial import try_file

SPARE_BYTES = 3 * 2**30
"""What a reader may ask for on top of what it has when it begins."""
PATIENCE = 10
"""Seconds on the clock that pass for one of CPU on a busy machine, before a process is given up."""


def main() -> None:
    """Try all readers, print a table, and fail if anything crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, help="for each reader")
    parser.add_argument("--readers", nargs="+", help="by name; all of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="of CPU, for one file")
    parser.add_argument("--megabytes", type=int, default=200, help="that one file may add")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzzing"))
    parser.add_argument("--child", nargs=2, metavar=("READER", "START"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _work(arguments)
        return
    arguments.keep.mkdir(parents=True, exist_ok=True)
    lines, crashes = [], 0
    for reader in readers(LARGE_BOMB):
        if arguments.readers and reader.name not in arguments.readers:
            continue
        counts, slowest, largest = Counter[str](), 0.0, 0.0
        for outcome in _outcomes(reader, arguments):
            counts[outcome["is"]] += 1
            slowest = max(slowest, outcome.get("seconds", 0.0))
            largest = max(largest, outcome.get("megabytes", 0.0))
            if outcome["is"] == "crash":
                data = reader.mutant(arguments.seed, outcome["number"])
                kept = arguments.keep / f"{outcome['number']}-{reader.file}"
                kept.write_bytes(data)
                print(f"  {reader.name}: {kept}: {outcome['why']}", flush=True)
        crashes += counts["crash"]
        lines.append(
            f"| {reader.name} | {counts.total():,} | {counts['rejected']:,} | "
            f"{counts['accepted']:,} | {counts['crash']:,} | {slowest:.1f} | {largest:.0f} |"
        )
        print(lines[-1], flush=True)
    print("\n| Reader | Files | Rejected | Accepted | Crashes | Slowest, s | Most added, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|", *lines, sep="\n")
    sys.exit(1 if crashes else 0)


def _outcomes(reader: Reader, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what became of every file, with a new process after each that did not live."""
    number = 0
    while number < arguments.files:
        command = [sys.executable, __file__, "--child", reader.name, str(number)]
        for name in ("files", "seed", "seconds", "megabytes"):
            command += [f"--{name}", str(getattr(arguments, name))]
        with (
            tempfile.TemporaryDirectory() as folder,
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, "TMPDIR": folder},
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
                patience = PATIENCE * arguments.seconds
                *complete, buffer = (buffer + chunk).split(b"\n")
                for line in complete:
                    outcome = json.loads(line)
                    if outcome["is"] != "ready":
                        yield outcome
                        number = outcome["number"] + 1
            process.kill()
            process.wait()
            if number < arguments.files:
                errors.seek(0)
                told = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                why = (
                    f"took more than {PATIENCE * arguments.seconds:g} s"
                    if not ready
                    else f"the process ended with {process.returncode}: {' '.join(told)}"
                )
                yield {"is": "crash", "number": number, "why": why}
                number += 1


def _work(arguments: argparse.Namespace) -> None:
    """Read files one after the other and tell what became of each, a line of JSON for each."""
    name, start = arguments.child
    reader = next(reader for reader in readers(LARGE_BOMB) if reader.name == name)
    warnings.simplefilter("error")
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # readers may print

    def tell(**values: Any) -> None:
        os.write(out, json.dumps(values).encode() + b"\n")

    path = reader.prepare(Path.cwd())
    zips.bomb("", LARGE_BOMB)  # made once
    path.write_bytes(reader.samples()[0])
    reader.read(path)  # a good file; imports what is imported late
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    tell(**{"is": "ready"})
    for number in range(int(start), arguments.files):
        reader.prepare(Path.cwd())
        path.write_bytes(reader.mutant(arguments.seed, number))
        before, began = _peak_megabytes(reset=True), time.process_time()
        outcome, why = try_file(reader.read, path)
        seconds, added = time.process_time() - began, _peak_megabytes() - before
        if outcome != "crash" and added > arguments.megabytes:
            outcome, why = "crash", f"took {added:.0f} MB more ({why})"
        if outcome != "crash" and seconds > arguments.seconds:
            outcome, why = "crash", f"took {seconds:.1f} s ({why})"
        tell(**{"is": outcome}, number=number, why=why, seconds=seconds, megabytes=added)


def _peak_megabytes(reset: bool = False) -> float:
    """Return the most memory that this process has held, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
