"""Write the golden genome file of the tests, or check that it still comes out the same.

python scripts/make_golden.py --check
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from populations.genome import Genome, Lineage
from populations.network import NetworkSpec
from populations.storage import save_genome

GOLDEN = Path(__file__).parents[1] / "tests" / "populations" / "data" / "golden.safetensors"


def golden_genome() -> Genome:
    """Return the genome of the golden file, from arithmetic that is exact on every machine."""
    spec = NetworkSpec((3,), (4,), 2, norm="layer", dropout_slots=True)
    weights = {}
    for number, (name, shape) in enumerate(spec.shapes.items()):
        steps = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        weights[name] = (steps - np.float32(3)) * np.float32(0.25) + np.float32(number)
    lineage = Lineage("child", 3, 7, ("3f9c1a7be210", "b81d04c2aa97"), "weighted", "3f9c1a7be210")
    return Genome.from_weights(spec, weights, lineage)


def main() -> int:
    """Write or check the golden file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args().check:
        save_genome(GOLDEN, golden_genome())
        print(f"wrote {GOLDEN} with the genome {golden_genome().id}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / GOLDEN.name
        save_genome(fresh, golden_genome())
        if fresh.read_bytes() != GOLDEN.read_bytes():
            print(f"{GOLDEN} differs from what is written today: is the change of format meant?")
            return 1
    print(f"{GOLDEN.name} is current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
