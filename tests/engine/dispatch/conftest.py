"""A small context with plans for it, and the executors that must behave alike."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from engine.breeding import Context
from engine.config import DispatchConfig, EnvironmentConfig, LearningConfig
from engine.dispatch.executor import Executor
from engine.dispatch.serial import SerialExecutor
from engine.learning.imitation import Lessons
from engine.seeding import Purpose, key
from populations.network import NetworkSpec
from populations.plans import ChildPlan, FineTune, Operator, Result
from strategies.crossover.fresh import FreshCrossover

sys.path.insert(0, str(Path(__file__).parent))

import disturbance  # for tests and scripts, which have no package

MakeExecutor = Callable[[DispatchConfig], Executor]
MakePlan = Callable[..., ChildPlan]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute as workers do: the number of threads may change the bytes."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def context() -> Context:
    """Return CartPole with two linear teachers of random weights."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(160, 4)).astype(np.float32)
    teachers = rng.normal(size=(2, 2, 4)).astype(np.float32)
    values = np.ascontiguousarray(teachers @ states.T)  # (2, 2, 160)
    return Context(
        run_seed=7,
        environment=EnvironmentConfig(),
        learning=LearningConfig(),
        spec=NetworkSpec((4,), (8,), 2),
        vector_dtype="float32",
        lessons=Lessons(
            train_states=states[:128],
            train_targets=np.ascontiguousarray(values[:, :, :128]),
            validation_states=states[128:],
            validation_targets=np.ascontiguousarray(values[:, :, 128:]),
        ),
        episodes=4,
        holdout_episodes=4,
    )


@pytest.fixture(scope="session")
def make_plan() -> MakePlan:
    """Return a maker of plans of students, by index and operator."""

    def make(index: int, operator: Operator | None = None) -> ChildPlan:
        return ChildPlan(
            kind="student",
            generation=0,
            index=index,
            parents=(),
            fitness=(),
            operator=operator or FreshCrossover(),
            align="none",
            mutation=None,
            finetune=FineTune("teachers", 10, 1e-2, 1.0, 0.0, (0.5, 0.5)),
            seed=key(7, Purpose.BIRTH, 0, index),
            phase="students",
        )

    return make


@pytest.fixture(scope="session")
def clean(context: Context, make_plan: MakePlan, one_thread: None) -> dict[int, Result]:
    """Return the results of eight plans that nothing went wrong with, by index."""
    results = context.work([make_plan(index) for index in range(8)], {})
    assert {result.status for result in results} == {"ok"}
    assert len({result.genome.id for result in results if result.genome}) == 8
    return {result.index: result for result in results}


@pytest.fixture(params=["serial", pytest.param("ray", marks=pytest.mark.ray)])
def make_executor(request: pytest.FixtureRequest) -> Iterator[MakeExecutor]:
    """Return a maker of executors, of either kind; the module of the test is sent to workers."""
    executors: list[Executor] = []

    def make(settings: DispatchConfig) -> Executor:
        executors.append(
            SerialExecutor(settings)
            if request.param == "serial"
            else ray_executor(settings, request)
        )
        return executors[-1]

    yield make
    for executor in executors:
        executor.close()


@pytest.fixture
def make_ray_executor(request: pytest.FixtureRequest) -> Iterator[MakeExecutor]:
    """Return a maker of Ray executors."""
    executors: list[Executor] = []

    def make(settings: DispatchConfig) -> Executor:
        executors.append(ray_executor(settings, request))
        return executors[-1]

    yield make
    for executor in executors:
        executor.close()


def ray_executor(settings: DispatchConfig, request: pytest.FixtureRequest) -> Executor:
    request.getfixturevalue("ray_cluster")
    from engine.dispatch.ray_executor import RayExecutor

    return RayExecutor(settings, [sys.modules[request.module.__name__], disturbance])


@pytest.fixture
def in_process(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that runs a script beside this file, and returns what it found.

    A process knows one Ray, with one set of settings. All that it started is ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="n-", dir="/tmp"))  # sockets need a short path
    started: list[subprocess.Popen[bytes]] = []

    def run(script: str, *arguments: str) -> Any:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        root = str(Path(__file__).parents[3])
        with (tmp_path / "errors").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name(script), folder, *arguments],
                env=environment | {"PYTHONPATH": root, "TMPDIR": str(folder)},
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        started.append(process)
        out, _ = process.communicate(timeout=400)
        said = (tmp_path / "errors").read_text(errors="replace")
        assert process.returncode == 0, said[-4000:]
        return json.loads(out.splitlines()[-1])

    yield run
    for entry in Path("/proc").iterdir() if started else ():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == started[0].pid:
                os.kill(int(entry.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
