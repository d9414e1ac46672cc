"""Work on a cluster that two nodes join, one of which has other files of cultivar.

python join_nodes.py FOLDER

FOLDER is for Ray and for the other files, and must have a short path. The last line of the output
says, in JSON, what came of it. A process of its own, since a process knows one cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import DispatchConfig
from engine.dispatch.executor import Batch
from engine.dispatch.probe import PACKAGES
from engine.dispatch.workers import executor_of

ROOT = Path(__file__).parents[3]
WORK_S = 0.4
MOST = 400


@dataclass(frozen=True)
class Plan:
    """A piece of work that needs nothing."""

    index: int
    needs: tuple[str, ...] = ()
    phase: str = "test"

    def abandoned(self, status: Any, reason: str, attempts: int) -> Result:
        return Result(self.index, f"{status}: {reason}", attempts=attempts)


@dataclass(frozen=True)
class Result:
    """Whose files did the work, and where."""

    index: int
    by: str
    node: str = ""
    attempts: int = 0


@dataclass(frozen=True)
class Look:
    """Takes its time, and tells whose files it finds."""

    folder: str

    def work(self, plans: Sequence[Plan], genomes: Mapping[str, Any]) -> list[Result]:
        from engine.dispatch import deadline

        time.sleep(WORK_S)
        by = getattr(deadline, "MARK", "ours")
        Path(self.folder, f"ran-{by}").touch()
        return [Result(plan.index, by) for plan in plans]


def main(folder: Path) -> None:
    other = folder / "other"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, other / package)
    with (other / "engine/dispatch/deadline.py").open("a", encoding="utf-8") as file:
        file.write('\nMARK = "theirs"\n')
    notes: list[str] = []
    seen: dict[str, int] = {}
    results: list[Result] = []
    with cluster(folder) as nodes:
        nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        stop = threading.Event()
        batches = [Batch.of([Plan(index)], {}) for index in range(MOST)]
        with executor_of(DispatchConfig(), nodes.address, None, tell=notes.append) as executor:
            for n, done in enumerate(executor.run(Look(str(folder)), batches, stop), 1):
                results += done
                seen[done[0].node] = seen.get(done[0].node, 0) + 1
                if n == 3:
                    os.environ["PYTHONPATH"] = str(other)
                    stranger = nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20).node_id
                    del os.environ["PYTHONPATH"]
                    friend = ""
                if n > 3 and not friend and any("no work is sent" in note for note in notes):
                    friend = nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20).node_id
                if any(name.endswith(friend[:8]) for name in seen if n > 3 and friend):
                    stop.set()
            slots = executor.n_workers
    sys.stdout.write(
        "\n"
        + json.dumps(
            {
                "notes": notes,
                "stranger": stranger[:8],
                "friend": friend[:8],
                "by": sorted({result.by for result in results}),
                "nodes": [name.rpartition("/")[2] for name in seen],
                "twice": len(results) - len({result.index for result in results}),
                "slots": slots,
                "the stranger worked": (folder / "ran-theirs").exists(),
            }
        )
        + "\n"
    )


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Any]:
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
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made
    finally:
        made.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
