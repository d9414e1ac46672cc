"""Measure what the driver itself costs per child: births that do nothing, everything else as ever.

The loop, the manager and the run directory are those of a real run, and journal, leaderboard and
genomes are written and synced as ever. Only the work of a batch is replaced: a stand-in hands back
int8 networks of 32+32 units, all different, with returns drawn at random. What is sent to a worker
and back is pickled, as it would be for Ray; the costs of Ray itself are not in here. Then the run
is looked at, and replayed out of its journal, as it is when it is resumed.

    python scripts/benchmark_scale.py [--children 10000 100000] [--no-looks] [--births]
                                      [--json FILE] [--page]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pages import write_between
from scaling.births import make_config
from scaling.driver import NOT_PER_CHILD, measure
from threadpoolctl import threadpool_limits

from engine import evolution
from engine.dispatch.serial import SerialExecutor
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from populations.leaderboard import load_leaderboard

COMMANDS = {"status": ["status"], "leaderboard": ["leaderboard", "--top", "10"]}
LOOK = """
import json, sys, time
from engine.cli.main import main
try:
    main(sys.argv[1:])
finally:
    with open("/proc/self/status", encoding="ascii") as file:
        high = next(line for line in file if line.startswith("VmHWM"))
    found = {"cpu_s": time.process_time(), "peak_mb": int(high.split()[1]) * 1024 / 1e6}
    print(json.dumps(found), file=sys.stderr)
"""
Figures = dict[str, Any]


def birth_seconds(folder: Path) -> float:
    """Return the CPU seconds of a real birth by default: the median of two generations.

    Teachers, and so most children, balance the pole for all 500 steps of an episode: the longest
    games there are.
    """
    config = make_config(folder, 2, 64)
    with RunDirectory.open(folder / "births", config) as directory, threadpool_limits(1):
        evolution.evolve(directory, SerialExecutor(config.dispatch), SilentProgress())
    rows = load_leaderboard([folder / "births"])
    born = rows[(rows["kind"] == "child") & rows["child"].notna()]
    return float(born["cpu_s"].median())


def look(arguments: Sequence[str]) -> Figures:
    """Run a command line, and return its CPU seconds and highest memory.

    It tells these itself: what the kernel says of a new process counts the memory of its parent.

    Raises:
        SystemExit: The command failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        told = "".join(done.stderr.splitlines()[-1:])
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {told}")
    return dict(json.loads(done.stderr.splitlines()[-1]))


def measure_all(
    folder: Path, n_children: int, per_generation: int, has_looks: bool = True
) -> Iterator[Figures]:
    """Yield what a run takes, and again with each look at it, the replay first.

    Each is done in a process of its own, so that none has memory that another one took.

    Args:
        folder: For the run.
        n_children: Of the run.
        per_generation: Children of a generation.
        has_looks: Whether the run is looked at and replayed.
    """
    run, generations = folder / "run", max(1, n_children // per_generation)
    print(f"{n_children:,} children are born", file=sys.stderr)
    found = in_a_process(run, folder, generations, per_generation)
    report(found)
    yield found
    if not has_looks:
        return
    print(f"{n_children:,} children are replayed", file=sys.stderr)
    again = in_a_process(run, folder, generations, per_generation, True)
    found["again"] = {"cpu_s": again["cpu_ms"] * n_children / 1e3, "peak_mb": again["peak_mb"]}
    yield told(found, "again")
    for name, arguments in COMMANDS.items():
        print(f"{n_children:,} children are looked at: {name}", file=sys.stderr)
        found[name] = look([*arguments, str(run)])
        yield told(found, name)


def in_a_process(*arguments: Any) -> Figures:
    """Return what ``measure`` returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        return processes.submit(measure, *arguments).result()


def told(found: Figures, name: str) -> Figures:
    """Print what a look at a run takes, and return all figures."""
    cpu_s, peak_mb = found[name]["cpu_s"], found[name]["peak_mb"]
    print(f"{name}: {cpu_s:.1f} s CPU, {peak_mb:.0f} MB", flush=True)
    return found


def report(found: Figures) -> None:
    """Print what was measured."""
    wait = found["sync_ms"] * found["syncs"] / found["children"]
    print(
        f"{found['children']:,} children: {found['cpu_ms']:.3f} ms CPU per child and {wait:.3f} ms "
        f"of waiting for the disk ({found['syncs']:,} syncs of {found['sync_ms']:.2f} ms), "
        f"{found['bytes']:,.0f} bytes per child, peak {found['peak_mb']:.0f} MB"
    )
    print("\n   children   CPU ms  wall ms   memory MB")
    for children, cpu, wall, memory in found["tenths"]:
        print(f"{children:>11,} {cpu:8.3f} {wall:8.3f} {memory:11.1f}")
    parts = found["tenths"]
    if len(parts) > 1:
        gained = 1e6 * (parts[-1][3] - parts[0][3]) / (parts[-1][0] - parts[0][0])
        print(f"memory grew by {gained:.1f} bytes per child after the first part")
    print("\nCPU ms per child by stage")
    for name, milliseconds in found["stages_ms"].items():
        note = " (not counted)" if name in NOT_PER_CHILD else ""
        print(f"  {name:<36} {milliseconds:.4f}{note}", flush=True)


def table(runs: Sequence[Figures]) -> str:
    """Return the figures of runs in Markdown."""
    lines = [
        "| children | CPU ms per child | first tenth | last tenth | waiting for the disk, ms "
        "| bytes per child | memory after a tenth | at the end | peak |",
        f"|{'---|' * 9}",
    ]
    for found in runs:
        first, last = found["tenths"][0], found["tenths"][-1]
        wait = found["sync_ms"] * found["syncs"] / found["children"]
        lines.append(
            f"| {found['children']:,} | {found['cpu_ms']:.2f} | {first[1]:.2f} | {last[1]:.2f} "
            f"| {wait:.2f} | {found['bytes']:,.0f} "
            f"| {first[3]:.0f} MB | {last[3]:.0f} MB | {found['peak_mb']:.0f} MB |"
        )
    names = {"again": "replaying it", **{name: f"`cultivar {name}`" for name in COMMANDS}}
    looked_at = [found for found in runs if all(name in found for name in names)]
    if not looked_at:
        return "\n".join(lines) + "\n"
    lines += ["", f"| children | {' | '.join(names.values())} |", f"|{'---|' * (1 + len(names))}"]
    for found in looked_at:
        cells = [
            f"{found[name]['cpu_s']:.1f} s, {found[name]['peak_mb']:,.0f} MB" for name in names
        ]
        lines.append(f"| {found['children']:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def keep(runs: Sequence[Figures], path: Path | None) -> None:
    """Write all figures so far, where a file is asked for."""
    if path is not None:
        path.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")


def profile(n_children: int, per_generation: int) -> None:
    """Show the functions that cost most."""
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder, profiler:
        measure(Path(folder, "run"), Path(folder), n_children // per_generation, per_generation)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--children", type=int, nargs="+", default=[10_000], help="of each run")
    parser.add_argument("--per-generation", type=int, default=1_000, help="children of each")
    parser.add_argument("--no-looks", action="store_true", help="do not look at runs, nor replay")
    parser.add_argument("--births", action="store_true", help="measure real births, too")
    parser.add_argument("--profile", action="store_true", help="show the functions that cost most")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--page", action="store_true", help="write the tables to docs/results.md")
    arguments = parser.parse_args()
    if arguments.profile:
        profile(arguments.children[0], arguments.per_generation)
        return
    runs = []
    for n_children in arguments.children:
        with tempfile.TemporaryDirectory() as folder:
            steps = measure_all(
                Path(folder), n_children, arguments.per_generation, not arguments.no_looks
            )
            for found in steps:  # so that what was measured is kept, should a later step fail
                keep([*runs, found], arguments.json)
            runs.append(found)
    if arguments.births:
        with tempfile.TemporaryDirectory() as folder:
            birth_ms = 1e3 * birth_seconds(Path(folder))
        print(
            f"\na real birth takes {birth_ms:.1f} ms CPU, as much as the driver spends on "
            f"{birth_ms / runs[-1]['cpu_ms']:.0f} children"
        )
    if arguments.page:
        write_between("results.md", "driver", "scripts/benchmark_scale.py", table(runs))


if __name__ == "__main__":
    main()
