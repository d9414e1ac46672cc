"""Runs on a cluster of several nodes on this machine, some of which die, leave, join or hang.

python run_on_nodes.py FOLDER

FOLDER is for Ray and for the runs, and must have a short path. The last line of the output says,
in JSON, how each run ended. A process of its own, since a process knows one cluster.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from engine.config import RunConfig
from engine.config_file import load_config
from engine.dispatch.serial import SerialExecutor
from engine.evolution import evolve
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from populations.leaderboard import stable_bytes
from strategies.crossover.weighted import WeightedCrossover
from strategies.registry import crossovers

BIRTH_S = 0.4
CONFIG = """
seed: 5
teachers:
  training: {steps: [6000, 6000], checkpoints: 2, checkpoint_episodes: 4}
states: {size: 256, episodes: 4}
network: {hidden: [8]}
distillation: {students: 4, steps: 30}
finetune: {steps: 10}
evolution:
  generations: 2
  population: 4
  children: 12
  elites: 1
  batch_size: 1
  controls: 0
  recipes: [{operator: drowsy}]
evaluation: {episodes: 4, holdout_episodes: 4, champion_candidates: 2}
"""


@crossovers.register
class Drowsy(WeightedCrossover):
    """The weighted average, which takes its time where there is Ray."""

    name = "drowsy"

    def cross(self, parents: Any, rng: Any) -> Any:
        if "ray" in sys.modules:
            time.sleep(BIRTH_S)
        return super().cross(parents, rng)


def main(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    config = load_config(path)
    with threadpool_limits(1):
        with RunDirectory.open(folder / "undisturbed", config) as directory:
            evolve(directory, SerialExecutor(config.dispatch), SilentProgress())
        expected = stable_bytes(folder / "undisturbed/leaderboard.csv")
        with cluster(folder) as nodes:
            found = {}
            nodes.add("a")
            nodes.add("b")
            for name, event in {
                "dies": lambda: nodes.remove("a", allow_graceful=False),
                "joins": lambda: nodes.add("c"),
                "leaves": lambda: nodes.remove("b", allow_graceful=True),
                "falls silent": lambda: nodes.stop("c"),
            }.items():
                if name == "falls silent":
                    nodes.add("d")
                found[name] = carry_out(config, folder / name.split()[-1], event, nodes)
                found[name]["same"] = found[name].pop("bytes") == expected
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def carry_out(
    config: RunConfig, path: Path, event: Callable[[], None], nodes: Nodes
) -> dict[str, Any]:
    """Carry out a run during which something happens, and return how it went."""
    from engine.dispatch import ray_executor

    class Disturbed(ray_executor.RayExecutor):
        """Lets it happen after three births of generation 1, with others under way."""

        happened = noticed = 0.0
        sent = 0
        mine = -1

        def _dispatch(self, *arguments: Any, **named: Any) -> Any:
            self.sent += 1
            return super()._dispatch(*arguments, **named)

        def _collect(self, *arguments: Any) -> Any:
            decision = super()._collect(*arguments)
            if self.happened and not self.noticed and not decision[1]:
                self.noticed = time.monotonic()
            return decision

        def _copy_late(self, shared: Any, flight: Any) -> None:
            before = len(flight)
            super()._copy_late(shared, flight)
            if len(flight) > before and self.happened and not self.noticed:
                self.noticed = time.monotonic()

        def run(self, context: Any, batches: Any, stop: Any) -> Iterator[Any]:
            kinds = {getattr(plan, "kind", "") for batch in batches for plan in batch.plans}
            for n, results in enumerate(super().run(context, batches, stop), 1):
                yield results
                if "child" in kinds and n == 3 and not self.happened:
                    time.sleep(BIRTH_S / 2)  # in the middle of the next births
                    self.happened = time.monotonic()
                    event()

    executor = Disturbed(config.dispatch)
    started = time.monotonic()
    with RunDirectory.open(path, config) as directory:
        evolve(directory, executor, SilentProgress())
    ended = time.monotonic()
    assert executor.happened, "nothing happened during the run"
    with (path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "bytes": stable_bytes(path / "leaderboard.csv"),
        "ok": sum(row["status"] == "ok" for row in rows),
        "most attempts": max(int(row["attempts"] or 0) for row in rows),
        "by new node": sum(row["node"].endswith(f"/{nodes.newest}") for row in rows),
        "noticed after s": round(max(executor.noticed - executor.happened, -1), 2),
        "seconds": round(ended - started, 1),
        "dispatches": executor.sent,
    }


class Nodes:
    """The nodes of a cluster by name, with one worker each."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._nodes: dict[str, Any] = {}
        self.newest = ""
        self.stopped: list[int] = []

    def add(self, name: str) -> None:
        """Add a node, and wait until it has a worker that could begin."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from engine.dispatch.ray_executor import warm_up

        node = self._cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        self._nodes[name] = node
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        task = ray.remote(num_cpus=1)(warm_up).options(scheduling_strategy=there)
        ray.get(task.remote(("engine.breeding",)))
        self.newest = node.node_id[:8]

    def remove(self, name: str, allow_graceful: bool) -> None:
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=allow_graceful)

    def stop(self, name: str) -> None:
        """Stop a node's processes where they are: nothing says that they are gone."""
        (info,) = self._nodes[name].all_processes["raylet"]
        self.stopped = [info.process.pid, *children(info.process.pid)]
        for pid in self.stopped:
            os.kill(pid, signal.SIGSTOP)


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Nodes]:
    """Yield a cluster whose head has no workers: loopback only, with a token."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ |= {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
        "RAY_TMPDIR": str(folder),
    }
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": 80 * 2**20,
        },
    )
    nodes = Nodes(made)
    try:
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        for pid in nodes.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ray.shutdown()
        made.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
