"""The measurement of workers: real runs on one and two, and its table by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import benchmark_workers
import pytest
from scaling.phases import GENERATIONS, HOLDOUT, STUDENTS, PhaseClock

from engine.config_file import load_config
from engine.dispatch.executor import Batch
from populations.plans import EvaluationPlan, Result


def figures(in_flight: float, cpu: float, alone: float) -> dict:
    """Return figures of a run of one kind of phase and four generations."""
    return {
        "phases": {GENERATIONS: {"wall_s": in_flight}},
        "in_flight_s": in_flight,
        "task_cpu_s": cpu,
        "alone_s": alone,
        "breeding_s": in_flight + alone,
        "n_generations": 4,
    }


def test_the_table_tells_ratios_of_rounds_and_shares_of_time() -> None:
    found = {
        1: [figures(10.0, 9.0, 0.4), figures(12.0, 9.0, 0.4), figures(11.0, 9.0, 0.4)],
        2: [figures(5.0, 9.0, 0.2), figures(8.0, 9.0, 0.2), figures(5.0, 9.0, 0.2)],
    }
    lines = [line for line in benchmark_workers.table(found).splitlines() if " | " in line]
    rows = {line.split(" | ", 1)[0].strip("| *"): line.split(" | ", 1)[1] for line in lines}
    # 10 / 5, 12 / 8 and 11 / 5
    assert rows["with batches in flight, s"] == "11.00 | 5.00 | 2.00x (1.50 to 2.20) |"
    assert rows["breeding tasks (generations), s"] == rows["with batches in flight, s"]
    # 10.4 / 5.2, 12.4 / 8.2 and 11.4 / 5.2
    whole = rows["breeding, with the driver alone between generations, s"]
    assert whole == "11.40 | 5.20 | 2.00x (1.51 to 2.19) |"
    # 9 / 11 with one worker; 9 / (2 * 5) with two
    assert rows["efficiency: that CPU by workers and time"].startswith("82 % | 90 % |")
    assert rows["driver alone, ms per generation"].startswith("100 | 50 |")


class Halves:
    """An executor that gives back a batch per call, with one and a half seconds in each plan."""

    n_workers = 1

    def run(self, context, batches, stop) -> Iterator[list[Result]]:
        for batch in batches:
            yield [Result(*plan.key, "ok", wall_s=1.5, cpu_s=1.0) for plan in batch.plans]

    def close(self) -> None:
        """Nothing was started."""


def test_a_clock_between_driver_and_workers_adds_up_their_tasks() -> None:
    clock = PhaseClock(Halves())

    def batch(phase: str, generation: int, n: int) -> Batch:
        plans = tuple(EvaluationPlan(generation, index, "g", phase) for index in range(n))
        return Batch(plans, {})

    for batches in (
        [batch("students", 0, 2)],
        [batch("elites", 1, 1), batch("children", 1, 3)],
        [batch("elites", 2, 1), batch("children", 2, 3)],
        [],
        [batch("holdout", 2, 5)],
    ):
        answers = list(clock.run(None, batches, threading.Event()))
        assert [len(answer) for answer in answers] == [len(each.plans) for each in batches]
    found = clock.figures()
    assert list(found["phases"]) == [STUDENTS, GENERATIONS, HOLDOUT]
    assert found["phases"][GENERATIONS]["task_cpu_s"] == 8.0
    assert found["phases"][GENERATIONS]["task_wall_s"] == 12.0
    assert found["task_cpu_s"] == 15.0
    assert found["n_generations"] == len(found["generations"]) == 2
    assert [task["plans"] for task in found["generations"][1]] == [1, 3]
    assert found["alone_s"] >= 0
    assert found["breeding_s"] >= found["phases"][GENERATIONS]["wall_s"]


@pytest.mark.ray
def test_one_and_two_workers_come_to_the_same_bytes() -> None:
    config = load_config("smoke", ["evolution.generations=1"])
    found = benchmark_workers.in_turn(config, [1, 2], 1)
    assert set(found) == {1, 2}
    (one,), (two,) = found.values()
    assert one["digest"] == two["digest"]
    for run in (one, two):
        assert run["n_generations"] == 1
        assert run["phases"][GENERATIONS]["task_cpu_s"] > 0
        assert run["in_flight_s"] > 0


def test_different_bytes_are_refused(monkeypatch) -> None:
    digests = iter("ab")

    class Here:
        """Runs in this process what another one should."""

        def __init__(self, *args, **kwargs) -> None:
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error) -> None:
            pass

        def submit(self, function, config, n):
            result = {**figures(1.0, 1.0, 0.0), "digest": next(digests)}
            return type("Done", (), {"result": lambda self: result})()

    monkeypatch.setattr(benchmark_workers, "ProcessPoolExecutor", Here)
    with pytest.raises(SystemExit, match="different bytes"):
        benchmark_workers.in_turn(load_config("smoke", []), [1, 2], 1)
