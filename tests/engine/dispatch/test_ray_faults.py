"""Workers that hang, die or run out of memory, and nodes that die, leave or join.

Whatever happens, the results are those of the undisturbed run, byte for byte.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import DispatchConfig
from engine.dispatch import speculation
from engine.dispatch.executor import Batch
from populations.plans import Result
from populations.storage import genome_to_bytes
from strategies.crossover.fresh import FreshCrossover

LONG_S = 120.0


class Faulty(FreshCrossover):
    """An operator with a fault, at its first call only or at each; notes the process of each.

    It keeps the name of its base, which is part of a genome.
    """

    def __init__(self, log: Path, fault: Callable[[], None], always: bool = False) -> None:
        self.log = log
        self.fault = fault
        self.always = always

    def cross(self, parents: Any, rng: np.random.Generator) -> Any:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self.always or len(calls(self.log)) == 1:
            self.fault()
        return super().cross(parents, rng)


def calls(log: Path) -> list[int]:
    """Return the processes that called a faulty operator."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def hang() -> None:
    time.sleep(LONG_S)


def leave() -> None:
    os._exit(3)


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


@pytest.fixture
def dispatched(make_ray_executor, monkeypatch) -> Callable[..., tuple[dict[int, Result], int]]:
    """Return a function that runs batches on Ray: results by index, and number of dispatches."""

    def run(context, batches: Sequence[Batch], **settings: Any) -> tuple[dict[int, Result], int]:
        executor = make_ray_executor(DispatchConfig(**settings))
        dispatch, sent = executor._dispatch, []
        monkeypatch.setattr(executor, "_dispatch", lambda *a: sent.append(a) or dispatch(*a))
        groups = executor.run(context, batches, threading.Event())
        results = [result for group in groups for result in group]
        assert len({result.index for result in results}) == len(results)
        return {result.index: result for result in results}, len(sent)

    return run


def assert_undisturbed(results: dict[int, Result], clean: dict[int, Result]) -> None:
    assert results
    for index, result in results.items():
        assert result.status == "ok"
        assert genome_to_bytes(result.genome) == genome_to_bytes(clean[index].genome)
        assert result.returns == clean[index].returns


def batches_of(plans, size: int) -> list[Batch]:
    return [Batch.of(plans[i : i + size], {}) for i in range(0, len(plans), size)]


@pytest.mark.ray
@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_that_hangs_is_started_again_and_the_first_answer_wins(
    dispatched, context, make_plan, clean, tmp_path, monkeypatch, size
) -> None:
    monkeypatch.setattr(speculation, "MINIMUM_S", 0.5)
    log = tmp_path / "log"
    plans = [make_plan(index) for index in range(8)]
    plans[1] = replace(plans[1], operator=Faulty(log, hang))
    results, _ = dispatched(context, batches_of(plans, size))
    assert sorted(results) == list(range(8))
    assert_undisturbed(results, clean)
    assert len(calls(log)) == 2  # and never a third time
    assert results[1].attempts == 2


@pytest.mark.ray
def test_a_killed_worker_costs_its_batch_one_round(
    dispatched, context, make_plan, clean, tmp_path
) -> None:
    log = tmp_path / "log"
    plans = [make_plan(index) for index in range(8)]
    plans[5] = replace(plans[5], operator=Faulty(log, hang))

    def kill() -> None:
        while not calls(log):
            time.sleep(0.01)
        os.kill(calls(log)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    results, n_dispatched = dispatched(context, batches_of(plans, 4), speculation=0)
    killer.join()
    assert sorted(results) == list(range(8))
    assert_undisturbed(results, clean)
    assert n_dispatched == 2 + 3  # in halves, as nobody is found to blame
    assert len(calls(log)) == 2


@pytest.mark.ray
def test_a_worker_that_runs_out_of_memory_fails_one_child_and_goes_on(
    dispatched, context, make_plan, clean, tmp_path
) -> None:
    plans = [make_plan(index) for index in range(4)]
    plans[1] = replace(plans[1], operator=Faulty(tmp_path / "log", ask_for_too_much, always=True))
    results, n_dispatched = dispatched(context, batches_of(plans, 4), speculation=0)
    failed = results.pop(1)
    assert failed.status == "failed"
    assert "Unable to allocate 1.00 GiB" in failed.reason
    assert_undisturbed(results, clean)
    assert n_dispatched == 1


@pytest.mark.ray
@pytest.mark.slow
def test_an_operator_that_always_ends_its_process_is_alone_after_a_few_dispatches(
    dispatched, context, make_plan, clean, tmp_path
) -> None:
    log = tmp_path / "log"
    plans = [make_plan(index) for index in range(8)]
    plans[6] = replace(plans[6], operator=Faulty(log, leave, always=True))
    results, n_dispatched = dispatched(context, [Batch.of(plans, {})], speculation=0)
    assert sorted(results) == list(range(8))
    failed = results.pop(6)
    assert failed.status == "failed"
    assert failed.reason == "WorkerCrashedError: the worker died"
    assert_undisturbed(results, clean)
    assert len(calls(log)) == 1 + 2  # with all others, and twice alone
    assert n_dispatched - 1 <= math.log2(8) + 2


@pytest.fixture
def on_nodes(tmp_path) -> Iterator[Callable[[], dict[str, dict[str, Any]]]]:
    """Return a function that runs the script beside this file, and returns what it found."""
    folder = Path(tempfile.mkdtemp(prefix="n-", dir="/tmp"))
    process: list[subprocess.Popen] = []

    def run() -> dict[str, dict[str, Any]]:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        with (tmp_path / "errors").open("wb") as errors:
            process.append(
                subprocess.Popen(
                    [sys.executable, Path(__file__).with_name("run_on_nodes.py"), folder],
                    env=environment | {"PYTHONPATH": str(Path(__file__).parents[3])},
                    start_new_session=True,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
            )
        out, _ = process[0].communicate(timeout=400)
        said = (tmp_path / "errors").read_text(errors="replace")
        assert process[0].returncode == 0, said[-4000:]
        return json.loads(out.splitlines()[-1])

    yield run
    for entry in Path("/proc").iterdir() if process else ():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == process[0].pid:
                os.kill(int(entry.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
def test_runs_whose_nodes_die_leave_join_or_fall_silent_end_as_the_undisturbed_one(
    on_nodes,
) -> None:
    found = on_nodes()
    assert sorted(found) == ["dies", "falls silent", "joins", "leaves"]
    for name, run in found.items():
        assert run["same"], (name, run)
        assert run["ok"] >= 20
    assert found["joins"]["by new node"] > 0
    assert found["falls silent"]["most attempts"] >= 2
