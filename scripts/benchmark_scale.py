"""Measure what the driver itself costs per child: births that do nothing, everything else as ever.

The loop, the manager and the run directory are those of a real run, and journal, leaderboard and
genomes are written and synced as ever. Only the work of a batch is replaced: a stand-in hands back
int8 networks of 32+32 units, all different, with returns drawn at random. What is sent to a worker
and back is pickled, as it would be for Ray; the costs of Ray itself are not in here. Then the run
is looked at, and replayed out of its journal, as it is when it is resumed.

    python scripts/benchmark_scale.py [--children 10000 100000] [--births] [--json FILE] [--page]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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
    """
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stderr.splitlines()[-1]))


def measure_all(folder: Path, n_children: int, per_generation: int) -> Figures:
    """Return what a run takes, and what it takes to look at it and to replay it.

    Each is done in a process of its own, so that none has memory that another one took.
    """
    run, generations = folder / "run", max(1, n_children // per_generation)
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        found = processes.submit(measure, run, folder, generations, per_generation).result()
        report(found)
        again = processes.submit(measure, run, folder, generations, per_generation, True).result()
    found["again"] = {"cpu_s": again["cpu_ms"] * n_children / 1e3, "peak_mb": again["peak_mb"]}
    for name, arguments in COMMANDS.items():
        found[name] = look([*arguments, str(run)])
    for name in ("again", *COMMANDS):
        print(f"{name}: {found[name]['cpu_s']:.1f} s CPU, {found[name]['peak_mb']:.0f} MB")
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
        print(f"  {name:<36} {milliseconds:.4f}{note}")


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
    lines += ["", f"| children | {' | '.join(names.values())} |", f"|{'---|' * (1 + len(names))}"]
    for found in runs:
        cells = [
            f"{found[name]['cpu_s']:.1f} s, {found[name]['peak_mb']:,.0f} MB" for name in names
        ]
        lines.append(f"| {found['children']:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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
            runs.append(measure_all(Path(folder), n_children, arguments.per_generation))
    if arguments.births:
        with tempfile.TemporaryDirectory() as folder:
            birth_ms = 1e3 * birth_seconds(Path(folder))
        print(
            f"\na real birth takes {birth_ms:.1f} ms CPU, as much as the driver spends on "
            f"{birth_ms / runs[-1]['cpu_ms']:.0f} children"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    if arguments.page:
        write_between("results.md", "driver", "scripts/benchmark_scale.py", table(runs))


if __name__ == "__main__":
    main()
