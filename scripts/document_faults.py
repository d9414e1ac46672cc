"""Inject the faults of the driver and its disk, and write what came of them into a page.

python scripts/document_faults.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import DOCS, between

ROOT = DOCS.parent
PAGE = DOCS / "reliability.md"
TESTS = "tests/integration/test_driver_faults.py"
COLUMNS = {
    "fault": "Fault",
    "how": "How it is injected",
    "detection": "How it is noticed",
    "extra": "Work done again",
    "outcome": "Outcome",
}


def main() -> int:
    """Run the tests, which keep a row each, and write the table; return their exit code."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", TESTS, "-m", "", "-q"],
            cwd=ROOT,
            env=os.environ | {"CULTIVAR_FAULT_ROWS": str(rows)},
            check=False,
        )
        if done.returncode != 0:
            return done.returncode
        found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    text = PAGE.read_text(encoding="utf-8")
    new = between(text, "driver faults", "scripts/document_faults.py", table(found))
    PAGE.write_text(new, encoding="utf-8")
    return 0


def table(rows: list[dict[str, str]]) -> str:
    """Return rows as a table in Markdown."""
    lines = [COLUMNS.values(), ["---"] * len(COLUMNS)]
    lines += [[row[name] for name in COLUMNS] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
