"""A few seconds of real breeding, to see how fast workers are and what is lost on the way."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from engine.breeding import Context
from engine.config import EnvironmentConfig, LearningConfig
from engine.dispatch.executor import Batch, Executor
from engine.learning.imitation import Lessons
from engine.seeding import Purpose, key
from populations.network import NetworkSpec
from populations.plans import ChildPlan, FineTune
from strategies.crossover.fresh import FreshCrossover

BIRTHS = 16
"""Births per batch, as a run has by default."""
STEPS = 400
MOST_BATCHES = 20_000
SEED = 0


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        births: Networks that were born.
        failures: Why others were not, each reason once.
        wall_s: Seconds that all of it took.
        cpu_s: Seconds that the workers computed.
        n_workers: How many worked side by side.
    """

    births: int
    failures: tuple[str, ...]
    wall_s: float
    cpu_s: float
    n_workers: int

    @property
    def births_per_s(self) -> float:
        """Networks per second."""
        return self.births / self.wall_s

    @property
    def efficiency(self) -> float:
        """Share of the workers' time in which they computed."""
        return self.cpu_s / (self.wall_s * self.n_workers)


def try_out(executor: Executor, seconds: float) -> Trial:
    """Breed CartPole networks from nothing: initialize, train, quantize, play.

    Args:
        executor: Whose workers are tried.
        seconds: About how long, beside the second or so in which every worker imports what it
            needs.
    """
    context, n_workers = _context(), executor.n_workers
    warm_up = _run(executor, context, 2 * n_workers, None)
    batch_s = warm_up.cpu_s / (2 * n_workers)
    wanted = seconds * n_workers / max(batch_s, 1e-3)
    n_batches = int(min(max(wanted, 2 * n_workers), MOST_BATCHES))
    return _run(executor, context, n_batches, seconds)


def _run(executor: Executor, context: Context, n_batches: int, seconds: float | None) -> Trial:
    """Breed until the batches or the seconds are over."""
    batches = [
        Batch.of([_plan(number * BIRTHS + i) for i in range(BIRTHS)], {})
        for number in range(n_batches)
    ]
    stop = threading.Event()
    timer = threading.Timer(seconds or 0, stop.set)
    if seconds is not None:
        timer.start()
    started = time.perf_counter()
    try:
        results = [result for done in executor.run(context, batches, stop) for result in done]
    finally:
        timer.cancel()
    return Trial(
        births=sum(result.status != "failed" and result.status != "lost" for result in results),
        failures=tuple(sorted({r.reason for r in results if r.status in ("failed", "lost")})),
        wall_s=time.perf_counter() - started,
        cpu_s=sum(result.cpu_s for result in results),
        n_workers=executor.n_workers,
    )


def _context() -> Context:
    """Return CartPole with two teachers of random weights: how well they play does not matter."""
    rng = np.random.default_rng(SEED)
    states = rng.normal(size=(640, 4)).astype(np.float32)
    teachers = rng.normal(size=(2, 2, 4)).astype(np.float32)
    values = np.ascontiguousarray(teachers @ states.T)  # (T, A, N)
    return Context(
        run_seed=SEED,
        environment=EnvironmentConfig(),
        learning=LearningConfig(),
        spec=NetworkSpec((4,), (32, 32), 2),
        vector_dtype="float32",
        lessons=Lessons(
            train_states=states[:512],
            train_targets=np.ascontiguousarray(values[:, :, :512]),
            validation_states=states[512:],
            validation_targets=np.ascontiguousarray(values[:, :, 512:]),
        ),
        episodes=32,
        holdout_episodes=32,
    )


def _plan(index: int) -> ChildPlan:
    return ChildPlan(
        kind="student",
        generation=0,
        index=index,
        parents=(),
        fitness=(),
        operator=FreshCrossover(),
        align="none",
        mutation=None,
        finetune=FineTune("teachers", STEPS, 1e-2, 1.0, 0.0, (0.5, 0.5)),
        seed=key(SEED, Purpose.BIRTH, 0, index),
        phase="students",
    )
