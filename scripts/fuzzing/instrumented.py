"""One reader under atheris, in a process of its own: ``coverage_guided`` starts it.

atheris changes modules while they are imported, so that libFuzzer sees which branches an input
takes, and keeps the inputs that take new ones. So it comes before all that is to be seen.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import warnings
from collections import Counter
from pathlib import Path

import atheris

SEEN = ["populations", "engine.learning", "engine.stages", "engine.cli", "engine", "strategies"]


def main() -> None:
    """Fuzz until libFuzzer has had its number of files or its time, and keep counts in a file."""
    asked = json.loads(sys.argv[1])
    source, _, function = asked["source"].partition(":")
    with atheris.instrument_imports(include=[*SEEN, source]):
        module = importlib.import_module(source)
    from fuzzing.limits import Limits, limit_memory  # after what it imports was instrumented

    reader = next(r for r in getattr(module, function)(asked["bomb"]) if r.name == asked["reader"])
    limits = Limits(asked["seconds"], asked["megabytes"])
    warnings.simplefilter("error")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # readers may print
    path = reader.prepare(Path.cwd())
    path.write_bytes(reader.samples()[0])
    reader.read(path)  # a good file; imports what is imported late
    keep, counts = Path(asked["keep"]), Counter[str]()
    crashes: dict[str, str] = {}
    slowest = largest = 0.0
    written = os.open(asked["counts"], os.O_WRONLY | os.O_CREAT)

    def try_one(content: bytes) -> None:
        nonlocal slowest, largest
        path = reader.prepare(Path.cwd())
        path.write_bytes(content)
        outcome = limits.measure(reader.read, path)
        counts[outcome["is"]] += 1
        slowest = max(slowest, outcome["seconds"])
        largest = max(largest, outcome["megabytes"])
        if outcome["is"] == "crash" and outcome["why"] not in crashes:
            kept = keep / f"atheris-{len(crashes)}-{reader.file.replace('/', '-')}"
            kept.write_bytes(content)
            crashes[outcome["why"]] = str(kept)
        told = {"counts": counts, "seconds": slowest, "megabytes": largest, "crashes": crashes}
        # libFuzzer ends the process without a word: what is to be known is written beforehand.
        os.pwrite(written, json.dumps(told).encode() + b"\n", 0)

    def mutate(content: bytes, max_size: int, seed: int) -> bytes:
        """Change a file blindly, as libFuzzer does, or a good one knowing its format."""
        rng = random.Random(seed)
        if reader.knowing and rng.random() < 0.5:  # no checksum comes right by chance
            content = rng.choice(reader.knowing)(rng, rng.choice(reader.samples()))
            if rng.random() < 0.7:
                return content[:max_size]
        return atheris.Mutate(content[:max_size], max_size)

    limit_memory()
    atheris.Setup([sys.argv[0], *asked["options"]], try_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
