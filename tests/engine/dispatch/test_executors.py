"""What SerialExecutor and RayExecutor must have in common, and what only workers can suffer."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from engine.config import DispatchConfig
from engine.dispatch.executor import Batch
from populations.plans import EvaluationPlan, FineTune, Result
from populations.storage import genome_to_bytes
from strategies.crossover.fresh import FreshCrossover


def note(log: Path) -> None:
    """Write one byte per call, from whatever process."""
    with log.open("ab") as file:
        file.write(b".")


class Troubled(FreshCrossover):
    """An operator with which something goes wrong that ``breed_batch`` does not catch."""

    name = "troubled"

    def __init__(self, log: Path, fault: str) -> None:
        self.log = log
        self.fault = fault

    def cross(self, parents: Any, rng: np.random.Generator) -> Any:
        note(self.log)
        if self.fault == "none":
            return super().cross(parents, rng)
        if self.fault == "sys.exit":
            sys.exit("enough")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "interrupt":
            raise KeyboardInterrupt
        if self.fault == "memory":
            raise MemoryError("too large")
        if self.fault == "native loop":  # holds the interpreter, so that no signal handler runs
            sum(range(10**13))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            pass
        return super().cross(parents, rng)


class Unreadable(FreshCrossover):
    """An operator that can be pickled, but not unpickled."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __reduce__(self) -> Any:
        return refuse, (self.log,)


def refuse(log: Path) -> NoReturn:
    note(log)
    raise ValueError("not today")


class Unsendable(FreshCrossover):
    """An operator that cannot even be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Slow(FreshCrossover):
    """An operator that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def cross(self, parents: Any, rng: np.random.Generator) -> Any:
        time.sleep(self.seconds)
        return super().cross(parents, rng)


def run(executor, context, batches: Sequence[Batch], stop=None) -> dict[int, Result]:
    """Return the results by index, and check that each plan got exactly one."""
    results = [
        result
        for group in executor.run(context, batches, stop or threading.Event())
        for result in group
    ]
    assert len({result.key for result in results}) == len(results)
    return {result.index: result for result in results}


def assert_same_birth(result: Result, expected: Result) -> None:
    assert result.status == expected.status == "ok"
    assert result.genome is not None
    assert expected.genome is not None
    assert genome_to_bytes(result.genome) == genome_to_bytes(expected.genome)
    assert result.returns == expected.returns
    assert result.mean_before == expected.mean_before
    assert result.agreements == expected.agreements
    assert result.kl == expected.kl


def batches_of(plans, size: int) -> list[Batch]:
    return [Batch.of(plans[i : i + size], {}) for i in range(0, len(plans), size)]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_every_plan_gets_one_result_that_does_not_depend_on_its_batch(
    make_executor, context, make_plan, clean, size
) -> None:
    executor = make_executor(DispatchConfig())
    results = run(executor, context, batches_of([make_plan(i) for i in range(8)], size))
    assert sorted(results) == list(range(8))
    for index, result in results.items():
        assert_same_birth(result, clean[index])
        assert result.attempts in (1, 2)  # two if a second copy was started, on a busy machine
        assert result.node
        assert result.wall_s > 0


def test_evaluations_find_their_genomes(make_executor, context, clean) -> None:
    genomes = {result.genome.id: result.genome for result in clean.values()}
    plans = [EvaluationPlan(0, i, clean[i].genome.id, "holdout") for i in range(4)]
    results = run(
        make_executor(DispatchConfig()),
        context,
        [Batch.of(plans[:3], genomes), Batch.of(plans[3:], genomes)],
    )
    assert {result.key for result in results.values()} == {plan.key for plan in plans}
    assert all(len(result.returns) == context.holdout_episodes for result in results.values())


def test_no_batches_give_no_results(make_executor, context) -> None:
    assert run(make_executor(DispatchConfig()), context, []) == {}


def check_isolation(
    executor, context, make_plan, clean, bad: dict, log: Path, size: int, attempts: int, reason: str
) -> None:
    """Spoil one of ``size`` plans; it must fail alone, and be tried no more than necessary."""
    where = size - 2 if size > 1 else 0
    plans = [make_plan(i) for i in range(size)]
    plans[where] = replace(plans[where], **bad)
    results = run(executor, context, [Batch.of(plans, {})])
    assert sorted(results) == list(range(size))
    failed = results.pop(where)
    assert failed.status == "failed"
    assert reason in failed.reason
    assert failed.genome is None
    assert failed.attempts == attempts
    for index, result in results.items():
        assert_same_birth(result, clean[index])
    # The half without it is carried out first each time; with all others, then, and alone.
    assert log.stat().st_size == (size > 1) + attempts


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_one_plan_that_the_whole_batch_chokes_on_fails_alone(
    make_executor, context, make_plan, clean, tmp_path, attempts
) -> None:
    log = tmp_path / "log"
    executor = make_executor(DispatchConfig(attempts=attempts, speculation=0))
    one_teacher_too_many = FineTune("teachers", 10, 1e-2, 1.0, 0.0, (0.2, 0.3, 0.5))
    bad = {"operator": Troubled(log, "none"), "finetune": one_teacher_too_many}
    check_isolation(executor, context, make_plan, clean, bad, log, 8, attempts, "ValueError: ")


def test_an_operator_that_exits_ends_its_child_and_not_the_run(
    make_executor, context, make_plan, clean, tmp_path
) -> None:
    bad = Troubled(tmp_path / "log", "sys.exit")
    batch = Batch.of([make_plan(0), make_plan(1, bad)], {})
    results = run(make_executor(DispatchConfig()), context, [batch])
    assert results[1].status == "failed"
    assert results[1].reason.startswith("troubled: SystemExit")
    assert (tmp_path / "log").stat().st_size == 1  # not tried again
    assert_same_birth(results[0], clean[0])


@pytest.mark.ray
def test_a_child_that_raises_keyboard_interrupt_fails_alone(
    make_ray_executor, context, make_plan, clean, tmp_path
) -> None:
    log = tmp_path / "log"
    bad = {"operator": Troubled(log, "interrupt")}
    executor = make_ray_executor(DispatchConfig(speculation=0))
    said = "RuntimeError: the work raised KeyboardInterrupt"
    check_isolation(executor, context, make_plan, clean, bad, log, 4, 2, said)


def test_an_operator_that_runs_out_of_memory_is_tried_again_alone_and_then_failed(
    make_executor, context, make_plan, clean, tmp_path
) -> None:
    log = tmp_path / "log"
    bad = {"operator": Troubled(log, "memory")}
    text = Path(__file__).read_text(encoding="utf-8")
    line = text[: text.index("raise MemoryError")].count("\n") + 1
    said = f"MemoryError: troubled: too large (test_executors.py, line {line})"  # whoever called it
    executor = make_executor(DispatchConfig(speculation=0))
    check_isolation(executor, context, make_plan, clean, bad, log, 4, 2, said)


def test_once_stopped_nothing_new_is_started_and_what_is_in_flight_is_yielded(
    make_executor, context, make_plan
) -> None:
    executor = make_executor(DispatchConfig())
    stop = threading.Event()
    results: list[Result] = []
    batches = batches_of([make_plan(i, Slow(0.5)) for i in range(20)], 1)
    for group in executor.run(context, batches, stop):
        results += group
        stop.set()
    in_flight = 1 if executor.n_workers == 1 else executor.n_workers + 1
    assert 1 <= len(results) <= in_flight + 1
    assert {result.status for result in results} == {"ok"}


@pytest.mark.ray
def test_what_arrives_while_the_driver_is_busy_is_yielded_together(
    make_ray_executor, context, make_plan
) -> None:
    executor, stop = make_ray_executor(DispatchConfig()), threading.Event()
    results = executor.run(context, batches_of([make_plan(i) for i in range(3)], 1), stop)
    n_first = len(next(results))
    time.sleep(10)  # all three were in flight
    assert [n_first, *(len(group) for group in results)] in ([1, 2], [2, 1], [3])


def test_a_run_that_was_stopped_before_it_began_does_nothing(
    make_executor, context, make_plan
) -> None:
    stop = threading.Event()
    stop.set()
    executor = make_executor(DispatchConfig())
    assert run(executor, context, [Batch.of([make_plan(0)], {})], stop) == {}


@pytest.mark.ray
@pytest.mark.parametrize(
    ("fault", "size", "attempts", "timeout_s", "reason"),
    [
        ("kill", 4, 2, 600, "WorkerCrashedError"),
        ("loop", 4, 2, 1.5, "BatchTimeoutError: no result within 1.5 s"),
        ("native loop", 1, 1, 0.5, "WorkerCrashedError"),
    ],
)
def test_one_plan_that_ruins_its_worker_fails_alone(
    make_ray_executor, context, make_plan, clean, tmp_path, fault, size, attempts, timeout_s, reason
) -> None:
    log = tmp_path / "log"
    executor = make_ray_executor(
        DispatchConfig(attempts=attempts, task_timeout_s=timeout_s, speculation=0)
    )
    bad = {"operator": Troubled(log, fault)}
    check_isolation(executor, context, make_plan, clean, bad, log, size, attempts, reason)


@pytest.mark.ray
def test_one_operator_that_no_worker_can_unpickle_fails_alone(
    make_ray_executor, context, make_plan, clean, tmp_path
) -> None:
    log = tmp_path / "log"
    executor = make_ray_executor(DispatchConfig(speculation=0))
    bad = {"operator": Unreadable(log)}
    check_isolation(executor, context, make_plan, clean, bad, log, 4, 2, "not today")


@pytest.mark.ray
@pytest.mark.parametrize("size", [1, 4])
def test_one_operator_that_cannot_be_sent_to_a_worker_fails_alone(
    make_ray_executor, context, make_plan, clean, size
) -> None:
    plans = [make_plan(i) for i in range(size)]
    plans[0] = replace(plans[0], operator=Unsendable())
    results = run(make_ray_executor(DispatchConfig()), context, [Batch.of(plans, {})])
    failed = results.pop(0)
    assert failed.status == "failed"
    assert failed.reason.startswith("it cannot be sent to a worker: TypeError: cannot pickle ")
    assert failed.attempts == 1
    for index, result in results.items():
        assert_same_birth(result, clean[index])


@pytest.mark.ray
def test_the_context_is_put_into_the_object_store_once(
    make_ray_executor, context, make_plan, monkeypatch
) -> None:
    import ray

    put, puts = ray.put, []
    monkeypatch.setattr(ray, "put", lambda value: puts.append(value) or put(value))
    executor = make_ray_executor(DispatchConfig())
    for _ in range(2):
        assert len(run(executor, context, batches_of([make_plan(i) for i in range(4)], 2))) == 4
    assert puts == [context]


@pytest.mark.ray
def test_workers_compute_with_one_thread(ray_cluster) -> None:
    import ray

    def count() -> set[int]:
        from threadpoolctl import threadpool_info

        import engine.breeding  # noqa: F401  # loads the libraries that have threads

        return {pool["num_threads"] for pool in threadpool_info()}

    counts = ray.get(ray.remote(num_cpus=1)(count).remote())
    assert counts == {1}


@dataclass(frozen=True)
class Sum:
    """A plan of another kind than those of breeding: a number to add to the context's own."""

    index: int
    number: int
    needs: tuple[str, ...] = ()
    phase: str = "sums"

    def abandoned(self, status: str, reason: str, attempts: int) -> Total:
        return Total(self.index, None, status, reason, attempts=attempts)


@dataclass(frozen=True)
class Total:
    index: int
    value: int | None
    status: str = "ok"
    reason: str = ""
    node: str = ""
    attempts: int = 1

    @property
    def key(self) -> int:
        return self.index


@dataclass(frozen=True)
class Adder:
    """A context that knows nothing of networks, and cannot add thirteen."""

    start: int

    def work(self, plans: Sequence[Sum], genomes: Any) -> list[Total]:
        if any(plan.number == 13 for plan in plans):
            raise ArithmeticError("thirteen")
        return [Total(plan.index, self.start + plan.number) for plan in plans]


def test_plans_of_any_kind_are_carried_out_and_fail_alone(make_executor) -> None:
    plans = [Sum(index, number) for index, number in enumerate((1, 5, 13, 2))]
    results = run(make_executor(DispatchConfig(attempts=2)), Adder(100), [Batch.of(plans, {})])
    assert [results[index].value for index in range(4)] == [101, 105, None, 102]
    assert [results[index].status for index in range(4)] == ["ok", "ok", "failed", "ok"]
    assert "ArithmeticError: thirteen" in results[2].reason
    assert [results[index].attempts for index in range(4)] == [1, 1, 2, 1]
    assert all(results[index].node for index in (0, 1, 3))
