"""Pages in docs/ that are written from the code, as a whole or between two marks."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def between(text: str, name: str, written_by: str, new: str) -> str:
    """Return a page with what stands between its marks replaced.

    Args:
        text: The page.
        name: What the marks are called.
        written_by: Who writes there, as the first mark says.
        new: What is to stand there, ending in a new line.

    Raises:
        SystemExit: The page lacks the marks.
    """
    first, last = f"<!-- {name}: written by {written_by} -->\n", f"<!-- {name}: end -->\n"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise SystemExit(f"the page needs the lines {first.strip()} and {last.strip()}")
    return before + begin + new + end + after


def write_between(page: str, name: str, written_by: str, new: str) -> None:
    """Replace what stands between two marks of a page in docs/; see :func:`between`."""
    path = DOCS / page
    path.write_text(between(path.read_text("utf-8"), name, written_by, new), encoding="utf-8")


def write_or_check(page: Path, command: str, write: Callable[[str], str]) -> int:
    """Read the command line, then write a page or tell whether it is current.

    Args:
        page: Its path.
        command: What writes it, for the message.
        write: Returns the new page, given the old one.

    Returns:
        Exit code: 1 where ``--check`` was asked for and the page is not current.
    """
    parser = argparse.ArgumentParser(description=f"Write docs/{page.name}, or check it.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    is_check = parser.parse_args().check
    old = page.read_text(encoding="utf-8") if page.is_file() else ""
    new = write(old)
    if is_check and new != old:
        print(f"{page.name} is out of date: run {command}")
        return 1
    if not is_check:
        page.write_text(new, encoding="utf-8")
    return 0
