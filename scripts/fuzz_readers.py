"""Give damaged and hostile files to every reader, and see that nothing but a clear error comes.

    python scripts/fuzz_readers.py [--files 2000] [READER ...]               the mutator
    python scripts/fuzz_readers.py --atheris [--files 5000] [READER ...]     guided by coverage
    python scripts/fuzz_readers.py --page                                    both; writes the table

Every reader works in a process of its own with a limit on its memory. A file that is not rejected
in one sentence, that takes longer than --seconds, more than --megabytes, ends the process, or has
code run counts as a crash; it is kept in the folder. The mutator makes a file from the seed and its
number; atheris (``pip install -e '.[fuzz]'``) changes the files that took new branches.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fuzzing import coverage_guided
from fuzzing.fixed import fixed_by_reader
from fuzzing.limits import Limits
from fuzzing.mutated import attack
from fuzzing.readers import LARGE_BOMB, Reader, readers
from pages import DOCS, between

FILES, ATHERIS_FILES = 2000, 5000
SLOW_SHARE = 4
"""Readers that read several files for each get this many times fewer."""
PAGE = DOCS / "reliability.md"
HEADER = (
    "| Reader | Mutated files | Rejected | Accepted | Crashes | By atheris | Rejected | Accepted "
    "| Crashes | Slowest, s | Most added, MB | Defects found and mended |\n"
    f"| --- |{' ---: |' * 11}\n"
)


def main() -> int:
    """Try the readers, print a table, and return 1 if anything crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", help="by name; all of them")
    parser.add_argument("--files", type=int, help=f"for each; {FILES}, {ATHERIS_FILES} of atheris")
    parser.add_argument("--atheris", action="store_true", help="let coverage guide the mutations")
    parser.add_argument("--duration", type=float, help="seconds on the clock for each, of atheris")
    parser.add_argument("--page", action="store_true", help="both, for docs/reliability.md")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="of CPU, for one file")
    parser.add_argument("--megabytes", type=int, default=200, help="that one file may add")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzzing"))
    arguments = parser.parse_args()
    everyone = {reader.name: reader for reader in readers(LARGE_BOMB)}
    if unknown := set(arguments.readers) - set(everyone):
        parser.error(f"no reader of {', '.join(unknown)}; there are {'; '.join(everyone)}")
    if (arguments.atheris or arguments.page) and not coverage_guided.is_here():
        parser.error(coverage_guided.MISSING)
    fixed, lines, n_crashes = fixed_by_reader(), [], 0
    for name in arguments.readers or everyone:
        found = _try(everyone[name], arguments)
        n_crashes += sum(len(part["crashes"]) for part in found if part)
        lines.append(_line(name, found, fixed.get(name, 0)))
        print(lines[-1], end="", flush=True)
    print(f"\n{HEADER}{''.join(lines)}")
    if arguments.page:
        text = PAGE.read_text(encoding="utf-8")
        new = between(text, "fuzzing", "scripts/fuzz_readers.py", HEADER + "".join(lines))
        PAGE.write_text(new, encoding="utf-8")
    return 1 if n_crashes else 0


def _try(
    reader: Reader, arguments: argparse.Namespace
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return what came of the mutator's files and of those of atheris; None where not asked."""
    limits = Limits(arguments.seconds, arguments.megabytes)
    share = SLOW_SHARE if reader.is_slow else 1
    mutated = guided = None
    if not arguments.atheris:
        files = arguments.files or FILES // share
        mutated = attack(reader, arguments.keep, files=files, seed=arguments.seed, limits=limits)
    if arguments.atheris or arguments.page:
        guided = coverage_guided.explore(
            reader,
            arguments.keep,
            files=arguments.files or ATHERIS_FILES // share,
            seconds=arguments.seconds,
            megabytes=arguments.megabytes,
            seed=arguments.seed,
            duration_s=arguments.duration,
        )
    for part in (mutated, guided):
        for why, kept in (part or {"crashes": {}})["crashes"].items():
            print(f"  {reader.name}: {kept}: {why}", flush=True)
    return mutated, guided


def _line(name: str, found: tuple[dict[str, Any] | None, ...], n_fixed: int) -> str:
    cells: list[str] = [name]
    for part in found:
        counts = {} if part is None else part["counts"]
        numbers = [
            sum(counts.values()),
            *(counts.get(i, 0) for i in ("rejected", "accepted", "crash")),
        ]
        cells += ["" if part is None else f"{number:,}" for number in numbers]
    done = [part for part in found if part is not None]
    cells += [f"{max(part['seconds'] for part in done):.1f}"]
    cells += [f"{max(part['megabytes'] for part in done):.0f}", str(n_fixed)]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(main())
