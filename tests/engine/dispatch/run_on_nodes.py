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
from dataclasses import replace
from pathlib import Path
from typing import Any

import disturbance
from disturbance import Undisturbed, carry_out, disturb, is_child

BIRTH_S = 0.6
AFTER = 3  # births of generation 1 before it happens


class Noted:
    """An operator like another one that takes its time; notes where and when each birth begins."""

    def __init__(self, operator: Any, index: int, folder: Path) -> None:
        self.operator = operator
        self.index = index
        self.folder = folder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "operator":
            raise AttributeError(name)
        return getattr(self.operator, name)

    def cross(self, parents: Any, rng: Any) -> Any:
        import ray

        node = ray.get_runtime_context().get_node_id()
        note = self.folder / f"{self.index}-{node[:8]}"
        note.write_text(str(time.time()))
        time.sleep(BIRTH_S)
        child = self.operator.cross(parents, rng)
        note.rename(note.with_suffix(".done"))
        return child


def main(folder: Path) -> None:
    quiet = disturbance.undisturbed(folder)
    with cluster(folder) as nodes:
        found = {}
        nodes.add("a")
        nodes.add("b")
        found["dies"] = disturbed(
            folder / "dies", quiet, nodes, "a", lambda: nodes.remove("a", allow_graceful=False)
        )
        found["joins"] = disturbed(folder / "joins", quiet, nodes, "c", lambda: nodes.add("c"))
        found["leaves"] = disturbed(
            folder / "leaves", quiet, nodes, "b", lambda: nodes.remove("b", allow_graceful=True)
        )
        nodes.add("d")
        found["falls silent"] = disturbed(
            folder / "silent", quiet, nodes, "c", lambda: nodes.stop("c")
        )
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def disturbed(
    path: Path, quiet: Undisturbed, nodes: Nodes, name: str, event: Callable[[], None]
) -> dict[str, Any]:
    """Carry out a run during which something happens to a node, and return how it went."""
    from engine.dispatch.ray_executor import RayExecutor

    notes = path.with_suffix(".notes")
    notes.mkdir()
    happened: list[float] = []
    hit: set[int] = set()

    def spoil(plan: Any) -> Any:
        if plan.phase != "children" or plan.generation != 1:
            return plan
        return replace(plan, operator=Noted(plan.operator, plan.index, notes))

    def happen(results: Any) -> None:
        """Let it happen once there are some births, and another one is under way there."""
        some = any(is_child(result, result.index) for result in results)
        born = len(list(notes.glob("*.done")))
        if happened or not some or born < AFTER:
            return
        node = nodes.id(name)
        if node:
            hit.update(int(note.name.split("-")[0]) for note in notes.glob(f"*-{node}"))
        if hit or not node:
            happened.append(time.time())
            event()

    executor = RayExecutor(quiet.config.dispatch, [disturbance, sys.modules["__main__"]])
    watch = disturb(executor, spoil)
    run = executor.run

    def eventful(*arguments: Any) -> Iterator[Any]:
        for results in run(*arguments):
            yield results
            happen(results)

    executor.run = eventful
    evolution = quiet.config.evolution.model_copy(update={"batch_size": 1})
    carry_out(path, quiet.config.model_copy(update={"evolution": evolution}), executor)
    assert happened, "nothing happened during the run"
    noticed = [at - happened[0] for at, some in watch.reactions if at > happened[0] and some & hit]
    with (path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    joined = [
        float(note.read_text()) - happened[0] for note in notes.glob(f"*-{nodes.newest}.done")
    ]
    return {
        "same": disturbance.outcome(path) == quiet.outcome,
        "rows": len(rows),
        "by new node": sum(row["node"].endswith(f"/{nodes.newest}") for row in rows),
        "first birth there after s": min(joined, default=None),
        "hit": len(hit),
        "noticed after s": min(noticed, default=None),
        "extra": watch.extra,
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

        from engine.dispatch.batch_task import warm_up

        node = self._cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        self._nodes[name] = node
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        task = ray.remote(num_cpus=1)(warm_up).options(scheduling_strategy=there)
        ray.get(task.remote(("engine.breeding",)))
        self.newest = node.node_id[:8]

    def id(self, name: str) -> str:
        """Return the beginning of Ray's id of a node; empty where it has not joined yet."""
        return self._nodes[name].node_id[:8] if name in self._nodes else ""

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
