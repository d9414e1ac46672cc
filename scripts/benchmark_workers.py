"""Measure what a second worker gains: a whole preset on a local Ray, with one worker and with two.

Teachers are trained once; everything after them is what ``cultivar evolve`` does. Rounds take turns
(1, 2, 2, 1, ...), since no machine is quiet for long, and what counts is the ratio within a round.
All runs must come to the same leaderboard and champion.

    python scripts/benchmark_workers.py [--workers 1 2] [--rounds 5] [--tasks FILE] [--page]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pages import write_between
from scaling.phases import GENERATIONS, PhaseClock
from threadpoolctl import threadpool_limits

from engine.config import RunConfig
from engine.config_file import load_config
from engine.dispatch.trial import try_out
from engine.dispatch.workers import executor_of
from engine.evolution import evolve
from engine.launch import launch
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from populations.leaderboard import stable_bytes

WARM_UP_S = 0.5
Figures = dict[str, Any]


def train_teachers(preset: str, overrides: Sequence[str], folder: Path) -> list[str]:
    """Train the teachers of a preset, and return their files."""
    config = load_config(preset, [*overrides, "dispatch.workers=0", "evolution.generations=0"])
    launch(config, folder, SilentProgress())
    return sorted(str(path) for path in (folder / "teachers").iterdir())


def measure(config: RunConfig, n_workers: int) -> Figures:
    """Go through a run, and return what it took and a hash of what it came to.

    Args:
        config: The run.
        n_workers: Workers of its Ray. They have done some other work before, so that starting
            processes and importing torch are not in here.
    """
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        run = Path(folder, "run")
        with (
            RunDirectory.open(run, config) as directory,
            executor_of(config.dispatch, "local", n_workers, preload=("engine.breeding",)) as ray,
        ):
            try_out(ray, WARM_UP_S)
            clock = PhaseClock(ray)
            cpu = time.process_time()
            champion = evolve(directory, clock, SilentProgress())
            cpu = time.process_time() - cpu
        digest = hashlib.sha256(stable_bytes(run) + champion.path.read_bytes()).hexdigest()
    return {**clock.figures(), "driver_cpu_s": cpu, "digest": digest}


def in_turn(config: RunConfig, workers: Sequence[int], rounds: int) -> dict[int, list[Figures]]:
    """Return the figures of each round by number of workers; each run has a process of its own.

    Raises:
        SystemExit: Two runs did not come to the same bytes.
    """
    found: dict[int, list[Figures]] = {n: [] for n in workers}
    # A process of its own for each: Ray takes its token once per process.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for number in range(rounds):
            for n in workers if number % 2 == 0 else reversed(workers):
                figures = processes.submit(measure, config, n).result()
                found[n].append(figures)
                took = f"{figures['in_flight_s']:.2f} s with batches in flight"
                print(f"round {number + 1}, {n} worker{'s' * (n > 1)}: {took}", flush=True)
    digests = {figures["digest"] for all_rounds in found.values() for figures in all_rounds}
    if len(digests) > 1:
        raise SystemExit("runs with different numbers of workers came to different bytes")
    return found


def table(found: Mapping[int, Sequence[Figures]]) -> str:
    """Return the figures in Markdown: medians over the rounds, with the range of ratios."""
    workers = list(found)
    base, last = workers[0], workers[-1]
    header = ["", *(f"{n} worker{'s' * (n > 1)}" for n in workers), f"{base} to {last}"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]

    def row(name: str, value: Callable[[Figures, int], float], form: str, ratio: bool) -> None:
        cells = [form.format(_median([value(each, n) for each in found[n]])) for n in workers]
        cells.append(
            _ratio(
                [value(each, base) for each in found[base]],
                [value(each, last) for each in found[last]],
            )
            if ratio
            else ""
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")

    for kind in found[base][0]["phases"]:
        name = "breeding tasks (generations)" if kind == GENERATIONS else kind
        row(f"{name}, s", lambda each, n, k=kind: each["phases"][k]["wall_s"], "{:.2f}", True)
    row("**with batches in flight, s**", lambda each, n: each["in_flight_s"], "{:.2f}", True)
    row("breeding, with the driver alone between generations, s", _breeding_s, "{:.2f}", True)
    row("CPU of the workers, s", lambda each, n: each["task_cpu_s"], "{:.2f}", True)
    row(
        "efficiency: that CPU by workers and time",
        lambda each, n: 100 * each["task_cpu_s"] / (n * each["in_flight_s"]),
        "{:.0f} %",
        False,
    )
    row("driver alone, s", lambda each, n: each["alone_s"], "{:.2f}", False)
    row(
        "driver alone, ms per generation",
        lambda each, n: 1e3 * each["alone_s"] / each["n_generations"],
        "{:.0f}",
        False,
    )
    return "\n".join(lines) + "\n"


def _breeding_s(figures: Figures, _: int) -> float:
    return float(figures["breeding_s"])


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _ratio(one: Sequence[float], other: Sequence[float]) -> str:
    """Return the median of the rounds' ratios, and their range."""
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    return f"{_median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="cartpole", help="preset or file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="how many, in turn")
    parser.add_argument("--rounds", type=int, default=5, help="runs with each number of workers")
    parser.add_argument("--tasks", type=Path, help="write the times of all batches here, as JSON")
    parser.add_argument("--page", action="store_true", help="write the table to docs/results.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("training the teachers", flush=True)
        files = train_teachers(arguments.preset, arguments.settings, Path(folder, "teachers"))
        teachers = f"teachers.files={json.dumps(files)}"
        config = load_config(arguments.preset, [*arguments.settings, teachers])
        found = in_turn(config, arguments.workers, arguments.rounds)
    text = table(found)
    print(f"\n{text}")
    if arguments.tasks is not None:
        arguments.tasks.write_text(json.dumps(found) + "\n", encoding="utf-8")
    if arguments.page:
        write_between("results.md", "workers", "scripts/benchmark_workers.py", text)


if __name__ == "__main__":
    main()
