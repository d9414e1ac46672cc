"""Inject faults, and write what came of them into the tables of a page.

    python scripts/document_faults.py [driver] [workers] [hosts]

The tests that inject the faults keep a row each. Those of hosts need root, see
scripts/cluster_hosts.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pages import DOCS, between

ROOT = DOCS.parent
PAGE = DOCS / "reliability.md"
TESTS = {
    "driver": [
        "tests/integration/test_driver_faults.py",
        "tests/integration/test_supervision.py",
    ],
    "workers": [
        "tests/engine/dispatch/test_ray_faults.py",
        "tests/engine/dispatch/test_poison.py",
        "tests/engine/dispatch/test_memory_faults.py",
        "tests/engine/dispatch/test_node_faults.py",
    ],
    "hosts": ["tests/cluster"],
}
COLUMNS = {
    "fault": "Fault",
    "how": "How it is injected",
    "noticed": "Noticed",
    "extra": "Extra work",
    "outcome": "Outcome",
}


def main() -> int:
    """Run the tests and write the tables that are asked for; return the tests' exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TESTS)}; default: all")
    asked = parser.parse_args().tables
    if unknown := set(asked) - set(TESTS):
        parser.error(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(TESTS)}")
    for name in asked or TESTS:
        if code := write_table(name):
            return code
    return 0


def write_table(name: str) -> int:
    """Run the tests of one table and write it; return their exit code."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *TESTS[name], "-m", "", "-q"],
            cwd=ROOT,
            env=os.environ | {"CULTIVAR_FAULT_ROWS": str(rows)},
            check=False,
        )
        if done.returncode != 0:
            return done.returncode
        found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    text = PAGE.read_text(encoding="utf-8")
    new = between(text, f"{name} faults", "scripts/document_faults.py", table(found))
    PAGE.write_text(new, encoding="utf-8")
    return 0


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return rows as a table in Markdown."""
    lines = [COLUMNS.values(), ["---"] * len(COLUMNS)]
    lines += [[row[name] for name in COLUMNS] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
