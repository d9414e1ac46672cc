"""Simulate runs on up to 1,000 workers, with times that were measured, and check it against runs.

    python scripts/benchmark_scale.py --children 10000 --json driver.json
    python scripts/benchmark_workers.py --tasks tasks.json
    python scripts/simulate_workers.py --driver driver.json --tasks tasks.json [--page]

What Ray takes is measured here. The simulation is compared with the preset of tasks.json on one
worker and two, and with runs on a Ray of more workers than there are cores, whose births sleep.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pages import write_between
from scaling.driver import JOURNAL, LOOKING, NOT_PER_CHILD, PICKLING, PLANNING, START
from scaling.fleet import RayCosts, ray_costs, sleep_through_run
from scaling.simulation import Costs, Outcome, Spread, draw_generations, simulate

WORKERS = (1, 2, 10, 100, 1000)
PER_GENERATION = (64, 1_000, 10_000)
BATCH_SIZES = {
    0.015: (16,),
    0.1: (4, 16),
    1.0: (1, 4, 16),
    10.0: (1, 4, 16),
}  # by seconds of a birth
GENERATIONS = 5
# Of the runs whose births sleep: long enough for 64 workers on two cores.
SLEEPERS = (8, 32, 64)
SLEEP_S = 0.06
SLEEPING_GENERATIONS = 3


def costs_of(driver: dict[str, Any], ray: RayCosts) -> Costs:
    """Return what a simulation needs to know.

    Args:
        driver: Figures of ``benchmark_scale.py``.
        ray: What Ray takes, pickling included.
    """
    stages = {name: ms / 1e3 for name, ms in driver["stages_ms"].items()}
    plan_s = stages[PLANNING] + stages[LOOKING]
    child_s = stages[JOURNAL] + stages[START]
    counted = sum(s for name, s in stages.items() if name not in (*NOT_PER_CHILD, PICKLING))
    return Costs(
        plan_s=plan_s,
        send_s=ray.batch_s / 2,
        take_s=ray.batch_s / 2,
        child_s=child_s + ray.child_s,
        sync_s=driver["sync_ms"] / 1e3,
        end_s=driver["end_sync_ms"] / 1e3,
        finish_s=counted - plan_s - child_s,
        way_s=ray.way_s,
        gap_s=ray.gap_s,
        look_s=ray.look_s,
    )


def spread_of(tasks: dict[str, Any]) -> Spread:
    """Return how much the CPU seconds of full batches of children vary."""
    batches = [
        task
        for rounds in tasks.values()
        for figures in rounds
        for generation in figures["generations"]
        for task in generation
        if task["phase"] == "children"
    ]
    full = max(task["plans"] for task in batches)
    seconds = np.array([task["cpu_s"] for task in batches if task["plans"] == full])
    return Spread(seconds / seconds.mean(), full)


def against_preset(tasks: dict[str, Any], costs: Costs) -> list[tuple[str, float, float]]:
    """Return what was measured and simulated with real births: efficiency by number of workers."""
    found = []
    for n_workers, rounds in tasks.items():
        measured, simulated = [], []
        for figures in rounds:
            generations = [
                [(task["plans"], task["cpu_s"]) for task in generation]
                for generation in figures["generations"]
            ]
            outcome = simulate(int(n_workers), generations, costs)
            measured.append(outcome.task_s / (figures["breeding_s"] * int(n_workers)))
            simulated.append(outcome.inner_efficiency)
        name = f"real births, {n_workers} worker{'s' * (n_workers != '1')}"
        found.append((name, float(np.median(measured)), float(np.median(simulated))))
    return found


def against_sleepers(
    costs: Costs, spread: Spread, workers: Sequence[int]
) -> list[tuple[str, float, float]]:
    """Return what was measured and simulated on a Ray whose workers sleep."""
    found = []
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for n_workers in workers:
            naps = [float(SLEEP_S * factor) for factor in spread.factors]
            arguments = (n_workers, SLEEPING_GENERATIONS, 40 * n_workers, spread.plans, naps)
            wall, generations = processes.submit(sleep_through_run, *arguments).result()
            outcome = simulate(n_workers, generations, costs)
            measured = outcome.task_s / (wall * n_workers)
            simulated = outcome.inner_efficiency
            found.append((f"births that sleep, {n_workers} workers", measured, simulated))
            print(f"{found[-1][0]}: {measured:.1%}, simulated {simulated:.1%}", flush=True)
    return found


def best(
    n_workers: int, n_children: int, birth_s: float, costs: Costs, spread: Spread
) -> tuple[int, Outcome]:
    """Return the outcome with the size of batches that is best, and that size."""
    outcomes = []
    for size in BATCH_SIZES[birth_s]:
        rng = np.random.default_rng(0)
        generations = draw_generations(GENERATIONS, n_children, size, birth_s, spread, rng)
        outcomes.append((size, simulate(n_workers, generations, costs)))
    return max(outcomes, key=lambda pair: pair[1].births_per_s)


def text(costs: Costs, checks: Sequence[tuple[str, float, float]], spread: Spread) -> str:
    """Return costs, checks and simulations in Markdown."""
    header = " | ".join(f"{n:,} worker{'s' * (n > 1)}" for n in WORKERS)
    lines = [
        f"Driver: {1e3 * costs.plan_s:.2f} ms per child before a generation, "
        f"{1e3 * costs.child_s:.2f} ms as it comes back, {1e3 * costs.finish_s:.2f} ms after it; "
        f"{1e3 * (costs.send_s + costs.take_s):.1f} ms per batch for Ray, "
        f"{1e6 * costs.look_s:.1f} µs per batch in flight to look what has arrived, "
        f"{1e3 * costs.sync_s:.1f} ms per sync of the journal, {1e3 * costs.end_s:.1f} ms of syncs "
        f"at the end of a generation. "
        f"Workers: {1e3 * costs.way_s:.1f} ms for the way of a batch, "
        f"{1e3 * costs.gap_s:.1f} ms between two. Batches of {spread.plans} vary by "
        f"{100 * spread.factors.std():.0f} %.",
        "",
        f"Children per batch that were tried: {_tried()}.",
        "",
        "| checked against | efficiency, measured | simulated |",
        "|---|---|---|",
        *(f"| {name} | {100 * real:.0f} % | {100 * guess:.0f} % |" for name, real, guess in checks),
        "",
        f"| a birth | children per generation | {header} | births per s | driver busy |",
        f"|{'---|' * (4 + len(WORKERS))}",
    ]
    for birth_s in BATCH_SIZES:
        for n_children in PER_GENERATION:
            cells = []
            for n_workers in WORKERS:
                size, outcome = best(n_workers, n_children, birth_s, costs, spread)
                cells.append(f"{100 * outcome.efficiency:.0f} % ({size})")
            lines.append(
                f"| {birth_s:g} s | {n_children:,} | {' | '.join(cells)} "
                f"| {outcome.births_per_s:,.0f} | {100 * outcome.driver_share:.0f} % |"
            )
    return "\n".join(lines) + "\n"


def _tried() -> str:
    """Return the sizes of batches by seconds of a birth."""
    return "; ".join(
        f"{', '.join(map(str, sizes))} for births of {birth_s:g} s"
        for birth_s, sizes in BATCH_SIZES.items()
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--driver", type=Path, required=True, help="from benchmark_scale.py --json")
    parser.add_argument("--tasks", type=Path, required=True, help="from benchmark_workers.py")
    parser.add_argument(
        "--sleepers", type=int, nargs="*", default=SLEEPERS, help="workers that sleep, in turn"
    )
    parser.add_argument("--page", action="store_true", help="write all of it to docs/results.md")
    arguments = parser.parse_args()
    driver = json.loads(arguments.driver.read_text(encoding="utf-8"))[-1]
    tasks = json.loads(arguments.tasks.read_text(encoding="utf-8"))
    print("measuring what Ray takes", flush=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        costs = costs_of(driver, processes.submit(ray_costs).result())
    spread = spread_of(tasks)
    checks = against_preset(tasks, costs) + against_sleepers(costs, spread, arguments.sleepers)
    print("simulating", flush=True)
    found = text(costs, checks, spread)
    print(f"\n{found}")
    if arguments.page:
        write_between("results.md", "simulation", "scripts/simulate_workers.py", found)


if __name__ == "__main__":
    main()
