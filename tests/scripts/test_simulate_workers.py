"""The simulation of many workers: cases whose outcome is known, and how its inputs are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import simulate_workers
from scaling import driver
from scaling.fleet import RayCosts
from scaling.simulation import SHORTEST, Costs, Spread, draw_generations, simulate, window

from engine.dispatch.executor import Batch
from engine.dispatch.speculation import Flight

FREE = Costs(0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(("n_workers", "wall_s"), [(1, 12.0), (2, 6.0), (5, 4.0), (6, 2.0)])
def test_where_nothing_else_costs_time_workers_take_equal_turns(n_workers, wall_s) -> None:
    outcome = simulate(n_workers, [[(16, 2.0)] * 6], FREE)
    assert outcome.wall_s == pytest.approx(wall_s)
    assert outcome.efficiency == pytest.approx(12.0 / (wall_s * n_workers))
    assert outcome.children == 96


def test_generations_wait_for_their_slowest_batch() -> None:
    outcome = simulate(2, [[(1, 1.0), (1, 3.0)], [(1, 3.0), (1, 1.0)]], FREE)
    assert outcome.wall_s == 6.0
    assert outcome.efficiency == pytest.approx(8 / 12)


def test_births_that_take_no_time_are_as_fast_as_the_driver() -> None:
    costs = Costs(
        plan_s=1.0, send_s=0.5, take_s=0.25, child_s=2.0, sync_s=0.0, finish_s=4.0, way_s=0, gap_s=0
    )
    outcome = simulate(1000, [[(3, 0.0)] * 10] * 2, costs)
    per_generation = 30 * (1 + 2 + 4) + 10 * (0.5 + 0.25)
    assert outcome.wall_s == outcome.driver_s == pytest.approx(2 * per_generation)
    assert outcome.driver_share == 1.0
    assert outcome.ends_s == 30 * (1 + 4)


def test_what_waits_at_a_worker_starts_without_the_driver() -> None:
    # The window is one more than there are workers, so one worker always has the next batch.
    slow_driver = replace(FREE, take_s=0.5)
    assert simulate(1, [[(1, 1.0)] * 10], slow_driver).wall_s == pytest.approx(10.5)
    assert simulate(1, [[(1, 1.0)] * 10], replace(FREE, gap_s=0.1)).wall_s == pytest.approx(10.9)
    assert simulate(1, [[(1, 1.0)]], replace(FREE, way_s=0.25)).wall_s == pytest.approx(1.5)


def test_results_that_arrive_together_are_synced_once() -> None:
    assert simulate(4, [[(1, 1.0)] * 4], replace(FREE, sync_s=0.5)).wall_s == 1.5


def test_a_look_costs_more_with_more_batches_in_flight() -> None:
    # Four batches are there at once; then nothing is in flight.
    assert simulate(4, [[(1, 1.0)] * 4], replace(FREE, look_s=0.25)).wall_s == 2.0


@pytest.mark.parametrize("n_workers", [1, 2, 15, 16, 1000])
def test_the_window_is_that_of_the_engine(n_workers: int) -> None:
    flight: Flight = Flight(0)
    while flight.has_room(n_workers):
        flight.add(len(flight), Batch((), {}))
    assert len(flight) == window(n_workers)


def test_drawn_batches_hold_all_children_and_vary_as_measured() -> None:
    spread = Spread(np.array([0.5, 1.5]), 16)
    rng = np.random.default_rng(0)
    generations = draw_generations(3, 96, 16, 0.1, spread, rng)
    assert [len(batches) for batches in generations] == [6, 6, 6]
    assert [size for size, _ in generations[0]] == [16] * 6
    per_child = {round(seconds / size, 9) for batches in generations for size, seconds in batches}
    assert per_child == {0.05, 0.15}
    assert [size for size, _ in draw_generations(1, 35, 16, 0.1, spread, rng)[0]] == [16, 16, 3]


def test_smaller_batches_vary_more_by_the_square_root() -> None:
    spread, rng = Spread(np.array([0.9, 1.1]), 16), np.random.default_rng(0)
    assert set(spread.of(np.full(99, 16), rng).round(9)) == {0.9, 1.1}
    assert set(spread.of(np.full(99, 4), rng).round(9)) == {0.8, 1.2}
    assert set(spread.of(np.full(99, 1), rng).round(9)) == {0.6, 1.4}
    # The mean of sixteen births drawn alone varies as the batches do that were measured.
    means = spread.of(np.ones(16_000, int), rng).reshape(-1, 16).mean(axis=1)
    assert means.std() == pytest.approx(0.1, rel=0.1)
    assert Spread(np.array([0.5]), 16).of(np.array([1]), rng).tolist() == [SHORTEST]


def test_workers_wait_while_the_files_of_a_generation_are_synced() -> None:
    outcome = simulate(2, [[(1, 1.0)] * 2] * 3, replace(FREE, end_s=0.5))
    assert outcome.wall_s == 4.5
    assert outcome.ends_s == 0.5


def test_costs_are_those_that_were_measured() -> None:
    stages = {
        driver.PLANNING: 1.0,
        driver.LOOKING: 2.0,
        driver.JOURNAL: 4.0,
        driver.START: 8.0,
        driver.PICKLING: 16.0,  # measured with Ray
        driver.WORKER: 32.0,
        driver.ONCE: 64.0,
        "genome packs": 128.0,
    }
    costs = simulate_workers.costs_of(
        {"stages_ms": stages, "sync_ms": 3.0, "end_sync_ms": 7.0},
        RayCosts(0.5, 0.25, 0.125, 0.0625, 0.03),
    )
    assert costs.plan_s == pytest.approx(0.003)
    assert costs.child_s == pytest.approx(0.012 + 0.25)
    assert costs.finish_s == pytest.approx(0.128)
    assert costs.send_s + costs.take_s == 0.5
    assert (costs.sync_s, costs.way_s, costs.gap_s) == (0.003, 0.125, 0.0625)
    assert costs.look_s == 0.03
    assert costs.end_s == 0.007


def test_spread_is_that_of_full_batches_of_children() -> None:
    def task(phase: str, plans: int, cpu_s: float) -> dict:
        return {"phase": phase, "plans": plans, "wall_s": 9.0, "cpu_s": cpu_s}

    generation = [task("elites", 8, 7.0), task("children", 16, 1.0), task("children", 4, 5.0)]
    tasks = {"1": [{"generations": [generation, [task("children", 16, 3.0)]]}]}
    spread = simulate_workers.spread_of(tasks)
    assert spread.factors.tolist() == [0.5, 1.5]
    assert spread.plans == 16


def test_the_text_has_a_row_per_birth_and_size_of_generation() -> None:
    costs = replace(FREE, plan_s=1e-4, child_s=2e-4)
    found = simulate_workers.text(costs, [("nothing", 0.5, 0.25)], Spread(np.ones(1), 16))
    assert "| nothing | 50 % | 25 % |" in found
    n_rows = len(simulate_workers.BATCH_SIZES) * len(simulate_workers.PER_GENERATION)
    assert sum(" s | " in line for line in found.splitlines()) == n_rows + 1
    # With one worker and births of ten seconds nothing else counts.
    (row,) = [line for line in found.splitlines() if line.startswith("| 10 s | 10,000 ")]
    assert row.split(" | ")[2].startswith("100 %")
