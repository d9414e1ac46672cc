"""Measure what the driver itself costs per child: births that do nothing, everything else as ever.

The loop, the manager and the run directory are those of a real run, and journal, leaderboard and
genomes are written and synced as ever. Only the work of a batch is replaced: a stand-in hands back
int8 networks of 32+32 units, all different, with returns drawn at random. What is sent to a worker
and back is pickled, as it would be for Ray; the costs of Ray itself are not in here.

    python scripts/benchmark_scale.py [--children 10000] [--per-generation 1000] [--births]
    python scripts/benchmark_scale.py --children 10000 --run-dir DIR --again  # resuming that run
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import pickle
import pstats
import resource
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_limits

from engine import evolution
from engine.breeding import Context
from engine.config import RunConfig
from engine.dispatch.executor import Batch
from engine.dispatch.serial import SerialExecutor
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from populations.genome import Genome, Lineage
from populations.leaderboard import load_leaderboard
from populations.manager import PopulationManager
from populations.network import NetworkSpec
from populations.plans import ChildPlan, Plan, Result
from populations.storage import save_weights

HIDDEN = (32, 32)
TEACHER = NetworkSpec((4,), (8,), 2)
N_TEACHERS = 2
START = "the loop itself"
ONCE = "teachers and states, once"
WORKER = "the stand-in for workers"
PICKLING = "pickling plans and results"
NOT_PER_CHILD = (WORKER, ONCE)
STAGES = {
    (evolution, "prepare"): ONCE,
    (evolution, "baseline_rows"): ONCE,
    (PopulationManager, "ask"): "planning births",
    (PopulationManager, "tell"): "taking in results",
    (PopulationManager, "finish_generation"): "survival, learning of recipes",
    (RunDirectory, "recorded"): "looking for recorded results",
    (RunDirectory, "record"): "results into the journal",
    (RunDirectory, "save_genomes"): "genome packs",
    (RunDirectory, "save_recipes"): "table of recipes",
    (RunDirectory, "finish_stage"): "rows into journal and leaderboard",
    (RunDirectory, "open_leaderboard"): "writing the leaderboard anew",
    (RunDirectory, "resume"): "opening the run again",
}


class StageClock:
    """CPU seconds of this process by stage; a stage does not count those inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stage = START
        self._since = time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside for one stage."""
        outer = self._stage
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def driver(self) -> float:
        """Return the seconds of what the driver does per child, up to now."""
        self._switch(self._stage)
        return sum(s for name, s in self.seconds.items() if name not in NOT_PER_CHILD)

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the function as a stage."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return call

    def _switch(self, name: str) -> None:
        now = time.process_time()
        self.seconds[self._stage] += now - self._since
        self._stage, self._since = name, now


class StandIn:
    """An executor whose births take no time: random networks with random returns."""

    n_workers = 1

    def __init__(self, clock: StageClock, config: RunConfig) -> None:
        self._clock = clock
        self._episodes = config.evaluation.episodes
        self._rng = np.random.default_rng(0)
        self._spec = NetworkSpec((4,), HIDDEN, 2)
        weights = random_weights(self._spec, self._rng)
        self._model = Genome.from_weights(self._spec, weights, Lineage("student", 0, 0))

    def run(
        self, context: Context, batches: Sequence[Batch[Plan]], stop: threading.Event
    ) -> Iterator[list[Result]]:
        """Yield the results of each batch; see ``Executor``."""
        for batch in batches:
            with self._clock.stage(PICKLING):
                sent = pickle.dumps((batch.plans, dict(batch.genomes)))
            with self._clock.stage(WORKER):
                plans, genomes = pickle.loads(sent)
                answer = pickle.dumps([self._result(plan, genomes) for plan in plans])
            with self._clock.stage(PICKLING):
                results: list[Result] = pickle.loads(answer)
            yield results

    def close(self) -> None:
        """Nothing was started."""

    def _result(self, plan: Plan, genomes: Mapping[str, Genome]) -> Result:
        returns = tuple(self._rng.integers(8, 501, self._episodes).astype(float).tolist())
        result = Result(*plan.key, "ok", returns=returns, node="stand-in")
        if isinstance(plan, ChildPlan):
            result.genome = self._genome(plan, genomes)
            result.mean_before, result.tuned, result.kl = returns[0], True, 0.01 * returns[1]
            result.agreements = (returns[2] / 512,) * N_TEACHERS
        return result

    def _genome(self, plan: ChildPlan, genomes: Mapping[str, Genome]) -> Genome:
        model, square = self._model, self._spec.matrices[1]
        codes = self._rng.integers(-127, 128, self._spec.shapes[square], np.int8)
        basis = genomes[plan.parents[0]].lineage.basis if plan.parents else model.id
        return Genome(
            self._spec,
            {**model.codes, square: codes},
            model.scales,
            model.vectors,
            Lineage(
                plan.kind, plan.generation, plan.index, plan.parents, plan.operator.name, basis
            ),
        )


class Meter(SilentProgress):
    """Notes CPU seconds, wall seconds and memory at the start of every generation."""

    def __init__(self, clock: StageClock) -> None:
        self.marks: list[tuple[float, float, float]] = []
        self._clock = clock

    def phase(self, name: str, total: int | None = None) -> None:
        """Take a reading between two generations."""
        if name in ("breeding", "champion"):
            self.marks.append((self._clock.driver(), time.perf_counter(), memory_mb()))


def memory_mb() -> float:
    """Return the resident memory of this process; the highest so far where Linux is not."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_mb()
    return pages * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """Return the highest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def random_weights(spec: NetworkSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a network with random weights."""
    return {name: rng.normal(size=s).astype(np.float32) for name, s in spec.shapes.items()}


def balancer(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a teacher that balances the pole: a linear controller, a little off each time."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in TEACHER.shapes.items()}
    push = (np.array([0.05, 0.2, 1.0, 0.5]) * rng.uniform(0.8, 1.2, 4)).astype(np.float32)
    weights["network.0.weight"][:2] = push, -push
    weights["network.2.weight"][:, :2] = [[0, 1], [1, 0]]
    return weights


def make_config(folder: Path, generations: int, per_generation: int) -> RunConfig:
    """Return a run with teachers and states at hand; what it leaves open is as by default."""
    rng = np.random.default_rng(1)
    files = [folder / f"teacher-{number}.safetensors" for number in range(N_TEACHERS)]
    for file in files:
        save_weights(file, TEACHER, balancer(rng), {})
    states = folder / "states.npy"
    np.save(states, rng.normal(scale=0.3, size=(4096, 4)).astype(np.float32))
    return RunConfig.model_validate(
        {
            "seed": 1,
            "teachers": {"files": [str(file) for file in files]},
            "states": {"file": str(states)},
            "network": {"hidden": HIDDEN},
            "evolution": {"generations": generations, "children": per_generation},
        }
    )


def measure(
    run: Path, inputs: Path, generations: int, per_generation: int, is_again: bool
) -> dict[str, Any]:
    """Go through a whole run and return what it took.

    Args:
        run: The run directory.
        inputs: Folder for the teachers and states.
        generations: Number of generations.
        per_generation: Children of each.
        is_again: Whether the run is there, and is to be replayed out of its journal.
    """
    config = make_config(inputs, generations, per_generation)
    clock = StageClock()
    meter = Meter(clock)
    with ExitStack() as stack:
        for (owner, name), label in STAGES.items():
            timed = clock.timed(getattr(owner, name), label)
            is_bound = isinstance(owner.__dict__[name], classmethod)
            stack.enter_context(
                mock.patch.object(owner, name, staticmethod(timed) if is_bound else timed)
            )
        start = time.perf_counter()
        directory = RunDirectory.resume(run) if is_again else RunDirectory.open(run, config)
        evolution.evolve(stack.enter_context(directory), StandIn(clock, config), meter)
    driver, wall = clock.driver(), time.perf_counter() - start
    n_children = generations * per_generation
    n_bytes = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    return {
        "children": n_children,
        "cpu_ms": 1e3 * driver / n_children,
        "wall_ms": 1e3 * wall / n_children,
        "bytes": n_bytes / n_children,
        "peak_mb": peak_mb(),
        "tenths": tenths(meter.marks, per_generation),
        "stages_ms": {
            name: 1e3 * seconds / n_children
            for name, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1])
        },
    }


def tenths(marks: Sequence[tuple[float, float, float]], per_generation: int) -> list[list[float]]:
    """Return children so far, CPU and wall ms per child, and memory in MB, for parts of a run.

    The parts are tenths of the run, or generations where these are fewer.

    Args:
        marks: CPU seconds, wall seconds and MB at the start of each generation and at the end.
        per_generation: Children of a generation.
    """
    n_generations = len(marks) - 1
    parts = min(10, n_generations)
    edges = [n_generations * part // parts for part in range(parts + 1)]
    table = []
    for first, last in itertools.pairwise(edges):
        per_child = 1e3 / ((last - first) * per_generation)
        (cpu, wall, _), (cpu_after, wall_after, memory) = marks[first], marks[last]
        table.append(
            [
                last * per_generation,
                (cpu_after - cpu) * per_child,
                (wall_after - wall) * per_child,
                memory,
            ]
        )
    return table


def birth_seconds(folder: Path) -> float:
    """Return the CPU seconds of a real birth by default: the median of two generations.

    Teachers, and so most children, balance the pole for all 500 steps of an episode: the longest
    games there are.
    """
    config = make_config(folder, 2, 64)
    with RunDirectory.open(folder / "births", config) as directory, threadpool_limits(1):
        evolution.evolve(directory, SerialExecutor(config.dispatch), SilentProgress())
    rows = load_leaderboard([folder / "births"])
    born = rows[(rows["kind"] == "child") & rows["child"].notna()]
    return float(born["cpu_s"].median())


def report(found: Mapping[str, Any]) -> None:
    """Print what was measured."""
    print(
        f"{found['children']:,} children: {found['cpu_ms']:.3f} ms CPU and {found['wall_ms']:.3f} "
        f"ms wall per child, {found['bytes']:,.0f} bytes per child, peak {found['peak_mb']:.0f} MB"
    )
    print("\n   children   CPU ms  wall ms   memory MB")
    for children, cpu, wall, memory in found["tenths"]:
        print(f"{children:>11,} {cpu:8.3f} {wall:8.3f} {memory:11.1f}")
    parts = found["tenths"]
    if len(parts) > 1:
        gained = 1e6 * (parts[-1][3] - parts[0][3]) / (parts[-1][0] - parts[0][0])
        print(f"memory grew by {gained:.1f} bytes per child after the first part")
    print("\nCPU ms per child by stage")
    for name, milliseconds in found["stages_ms"].items():
        note = " (not counted)" if name in NOT_PER_CHILD else ""
        print(f"  {name:<36} {milliseconds:.4f}{note}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--children", type=int, default=10_000, help="children of the run")
    parser.add_argument("--per-generation", type=int, default=1_000, help="children of each")
    parser.add_argument("--run-dir", type=Path, help="keep the run here")
    parser.add_argument("--again", action="store_true", help="replay the run in --run-dir")
    parser.add_argument("--births", action="store_true", help="measure real births, too")
    parser.add_argument("--profile", action="store_true", help="show the functions that cost most")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    generations = max(1, arguments.children // arguments.per_generation)
    if arguments.again and arguments.run_dir is None:
        parser.error("--again needs the --run-dir of an earlier measurement")
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run_dir or Path(folder, "run")
        if arguments.profile:
            profile.enable()
        found = measure(run, Path(folder), generations, arguments.per_generation, arguments.again)
        profile.disable()
        report(found)
        if arguments.births:
            found["birth_ms"] = 1e3 * birth_seconds(Path(folder))
            print(
                f"\na real birth takes {found['birth_ms']:.1f} ms CPU, as much as the driver "
                f"spends on {found['birth_ms'] / found['cpu_ms']:.0f} children"
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
