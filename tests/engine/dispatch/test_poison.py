"""Children that ruin each worker they come to: they fail alone, after few dispatches."""

from __future__ import annotations

import ctypes
import faulthandler
import math
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from disturbance import Faulty, Watch, calls, dispatches, disturb, leave

from engine.config import DispatchConfig
from engine.dispatch.executor import Batch
from populations.plans import Result
from populations.storage import genome_to_bytes

OTHERS = "the others with the same bytes"


def crash() -> None:
    """Read what is not there."""
    ctypes.string_at(0)


def loop() -> None:
    while True:
        pass


def hold() -> None:
    """Hold the interpreter, so that no signal handler runs."""
    sum(range(10**13))


def resist() -> None:
    """Hold the interpreter, and keep the worker from ending itself."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    faulthandler.cancel_dump_traceback_later()
    hold()


@pytest.fixture
def spoiled(make_ray_executor, context, make_plan, clean, tmp_path) -> Callable[..., Result]:
    """Return a function that carries out a batch with a bad plan, and checks all others."""

    def run(
        fault: Callable[[], None], size: int, bad: int, limits: DispatchConfig
    ) -> tuple[Result, Watch, Path]:
        log = tmp_path / "log"
        plans = [make_plan(index) for index in range(size)]
        plans[bad] = replace(plans[bad], operator=Faulty(plans[bad].operator, log, fault, True))
        executor = make_ray_executor(limits)
        watch = disturb(executor)
        groups = executor.run(context, [Batch.of(plans, {})], threading.Event())
        results = [result for group in groups for result in group]
        assert sorted(result.index for result in results) == list(range(size))
        found = {result.index: result for result in results}
        failed = found.pop(bad)
        for index, result in found.items():
            assert result.status == "ok", result.reason
            assert genome_to_bytes(result.genome) == genome_to_bytes(clean[index].genome)
            assert result.returns == clean[index].returns
        assert watch.extra <= math.log2(size) + limits.attempts
        return failed, watch, log

    return run


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "bad", "timeout_s", "reason", "title", "how"),
    [
        (
            leave,
            3,
            600,
            "WorkerCrashedError: the worker died",
            "child that always ends its process",
            "`os._exit` at each call, in a batch of 8",
        ),
        (
            crash,
            0,
            600,
            "WorkerCrashedError: the worker died",
            "child that always crashes in native code",
            "a null pointer at each call, in a batch of 8",
        ),
        (
            loop,
            7,
            3,
            "BatchTimeoutError: no result within 3 s",
            "child that never ends",
            "an endless loop at each call, in a batch of 8; `task_timeout_s` is 3",
        ),
        (
            hold,
            6,
            2,
            "WorkerCrashedError: the worker died",
            "child that never ends, in native code",
            "a loop that holds the interpreter, in a batch of 8; `task_timeout_s` is 2",
        ),
    ],
)
def test_a_child_that_ruins_each_worker_fails_alone(
    spoiled, fault_row, fault, bad, timeout_s, reason, title, how
) -> None:
    failed, watch, log = spoiled(
        fault, 8, bad, DispatchConfig(task_timeout_s=timeout_s, speculation=0)
    )
    assert (failed.status, failed.reason) == ("failed", reason)
    fault_row(
        fault=title,
        how=how,
        noticed=f"{watch.noticed_after({bad}, calls(log)[0].at):.2f} s",
        extra=dispatches(watch.extra),
        outcome=f"the child failed, {OTHERS}",
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_child_that_only_the_driver_can_end_is_lost_alone(spoiled, fault_row) -> None:
    limits = DispatchConfig(task_timeout_s=2, speculation=0, loss_attempts=2)
    failed, watch, log = spoiled(resist, 4, 2, limits)
    assert failed.status == "lost"
    assert failed.reason == "no answer within 18.5 s 2 times"
    fault_row(
        fault="child that only the driver can end",
        how="the same, and it switches the worker's time limits off, in a batch of 4; "
        "`loss_attempts` is 2",
        noticed=f"{watch.noticed_after({2}, calls(log)[0].at):.1f} s, by the driver",
        extra=dispatches(watch.extra),
        outcome=f"the child is lost, {OTHERS}",
    )
