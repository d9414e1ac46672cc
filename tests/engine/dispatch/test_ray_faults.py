"""Workers that die, hang, stop, slow down or are short of memory, in small runs on Ray.

Whatever happens, the run ends with the leaderboard, genomes and champion of the undisturbed one.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from disturbance import (
    BAD,
    Faulty,
    Undisturbed,
    Watch,
    calls,
    carry_out,
    compute,
    dispatches,
    disturb,
    hang,
    is_child,
    meanwhile,
    nothing,
    outcome,
    slow_down,
    stop,
    undisturbed,
)

from engine.config import DispatchConfig
from engine.dispatch import speculation

SAME = "same leaderboard, genomes and champion"
KILLED_AFTER_S = 0.3


def ask_for_too_much() -> None:
    """Allocate a GiB where the process may have 256 MiB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        np.ones(2**27)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="session")
def quiet_run(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Return a run in which nothing went wrong."""
    return undisturbed(tmp_path_factory.mktemp("quiet"))


@dataclass(frozen=True)
class Disturbed:
    """A run in which something went wrong.

    Attributes:
        outcome: What came of it.
        watch: What the executor did.
        log: The notes of the faulty operator.
    """

    outcome: dict[str, bytes]
    watch: Watch
    log: Path

    def noticed_after(self, since: float | None = None) -> float:
        """Return the seconds until the first reaction, from the first call if not told."""
        return self.watch.noticed_after({BAD}, since or calls(self.log)[0].at)


@pytest.fixture
def run_with(make_ray_executor, quiet_run, tmp_path) -> Callable[..., Disturbed]:
    """Return a function that carries out the run with a fault in one birth."""

    def run(
        fault: Callable[[], None],
        act: Callable[[int, Event], None] = lambda pid, over: None,
        batch_size: int = 8,
        others: Callable[[], None] | None = None,
        **settings: Any,
    ) -> Disturbed:
        log = tmp_path / "log"

        def spoil(plan: Any) -> Any:
            if is_child(plan):
                return replace(plan, operator=Faulty(plan.operator, log, fault))
            if others is not None and plan.phase == "children" and plan.generation == 1:
                return replace(
                    plan, operator=Faulty(plan.operator, tmp_path / "others", others, True)
                )
            return plan

        executor = make_ray_executor(DispatchConfig(**settings))
        watch = disturb(executor, spoil)
        evolution = quiet_run.config.evolution.model_copy(update={"batch_size": batch_size})
        config = quiet_run.config.model_copy(update={"evolution": evolution})
        with meanwhile(log, act):
            carry_out(tmp_path / "run", config, executor)
        return Disturbed(outcome(tmp_path / "run"), watch, log)

    return run


@pytest.mark.ray
def test_a_run_on_ray_without_faults_dispatches_each_batch_once(run_with, quiet_run) -> None:
    run = run_with(nothing)
    assert run.outcome == quiet_run.outcome
    assert run.watch.given > 5
    assert run.watch.extra == 0
    assert run.watch.reactions == []


@pytest.mark.ray
def test_a_worker_that_is_killed_in_the_middle_of_a_batch(run_with, quiet_run, fault_row) -> None:
    killed = []

    def kill(pid: int, over: Event) -> None:
        time.sleep(KILLED_AFTER_S)
        killed.append(time.time())
        os.kill(pid, signal.SIGKILL)

    run = run_with(hang, kill, speculation=0)
    assert run.outcome == quiet_run.outcome
    assert len(calls(run.log)) == 2
    assert run.watch.extra == 4  # three probes, none of which is to blame, and the last one left
    fault_row(
        fault="worker process killed",
        how="`kill -9` in the middle of a batch of 8",
        noticed=f"{run.noticed_after(killed[0]):.2f} s",
        extra=dispatches(run.watch.extra),
        outcome=SAME,
    )


@pytest.mark.ray
def test_a_worker_that_finds_too_little_memory_once(run_with, quiet_run, fault_row) -> None:
    run = run_with(ask_for_too_much, speculation=0)
    assert run.outcome == quiet_run.outcome
    assert len(calls(run.log)) == 2
    assert run.watch.extra == 4
    fault_row(
        fault="worker out of memory: an allocation fails",
        how="1 GiB where the process may take 256 MiB more, once, in a batch of 8",
        noticed=f"{run.noticed_after():.2f} s",
        extra=dispatches(run.watch.extra),
        outcome=f"{SAME}; the worker goes on",
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_task_that_hangs_is_started_again_and_the_first_answer_wins(
    run_with, quiet_run, fault_row
) -> None:
    run = run_with(hang, batch_size=2)
    assert run.outcome == quiet_run.outcome
    assert len(calls(run.log)) == 2  # and never a third time
    assert run.watch.extra >= 1
    assert run.noticed_after() >= speculation.MINIMUM_S / 2
    fault_row(
        fault="task that hangs, found by others being done",
        how="an operator sleeps for two minutes at its first call, in a batch of 2",
        noticed=f"{run.noticed_after():.1f} s, as late",
        extra=_copies(run.watch),
        outcome=SAME,
    )


@pytest.mark.ray
def test_a_task_that_hangs_is_ended_after_its_time(run_with, quiet_run, fault_row) -> None:
    run = run_with(hang, speculation=0, task_timeout_s=3)
    assert run.outcome == quiet_run.outcome
    assert run.watch.extra == 4
    fault_row(
        fault="task that hangs, until its time limit",
        how="the same in a batch of 8; `task_timeout_s` is 3, and nothing is started twice",
        noticed=f"{run.noticed_after():.1f} s",
        extra=dispatches(run.watch.extra),
        outcome=SAME,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_straggler_at_a_tenth_of_the_speed_is_overtaken(
    run_with, quiet_run, fault_row, tmp_path
) -> None:
    slow = partial(slow_down, tmp_path / "others")
    run = run_with(compute, slow, batch_size=1, others=compute)
    assert run.outcome == quiet_run.outcome
    assert len({call.pid for call in calls(run.log)}) == 2
    assert run.watch.extra >= 1
    fault_row(
        fault="straggler",
        how="its worker gets a tenth of the CPU that others got; a birth takes 1 s of CPU",
        noticed=f"{run.noticed_after():.1f} s, as late",
        extra=_copies(run.watch),
        outcome=f"{SAME}; the second copy answered first",
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_is_stopped_is_given_up_by_the_driver(run_with, quiet_run, fault_row) -> None:
    def end_it_afterwards(pid: int, over: Event) -> None:
        over.wait()  # nobody but the kernel can end it, and until then it takes a slot
        os.kill(pid, signal.SIGKILL)

    run = run_with(stop, end_it_afterwards, speculation=0, task_timeout_s=2)
    assert run.outcome == quiet_run.outcome
    assert run.watch.extra == 4
    fault_row(
        fault="worker that nobody in it can end",
        how="SIGSTOP in a batch of 8; `task_timeout_s` is 2, and nothing is started twice",
        noticed=f"{run.noticed_after():.1f} s, by the driver",
        extra=dispatches(run.watch.extra),
        outcome=SAME,
    )


def _copies(watch: Watch) -> str:
    return "1 second copy" if watch.extra == 1 else f"{watch.extra} second copies"
