"""A Ray cluster on hosts out of namespaces, and runs on it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster_hosts import HEAD, PORT, Hosts

from populations.leaderboard import stable_bytes

DRIVER = "driver"
WORKERS = ("worker1", "worker2")
SETTINGS = {"evolution.children": 12, "evolution.batch_size": 2}
# A birth waits as long as the hosts are told to, so that several can share the two cores of a
# small machine and something can happen while batches are under way.
BIRTH_S = {"BIRTH_S": "0.4"}
OPERATOR = """
import os
import time

from strategies import CrossoverOperator


class MeetCrossover(CrossoverOperator):
    name = "meet"

    def cross(self, parents, rng):
        time.sleep(float(os.environ.get("BIRTH_S", "0")))
        first, second = parents
        t = rng.uniform(0, 0.8)
        return {name: first[name] + t * (second[name] - first[name]) for name in first}
"""
PATIENCE_S = 600

Outcome = dict[str, bytes]


def arguments(disk: Path, run: str, generations: int) -> list[str | Path]:
    """Return the command of a run that uses an operator from a file."""
    settings = [
        f"--set={name}={value}"
        for name, value in (SETTINGS | {"evolution.generations": generations}).items()
    ]
    plugin = ["--plugin", disk / "newcomer.py", "--operator", "meet"]
    return ["evolve", "smoke", "--run-dir", disk / run, *plugin, *settings]


def outcome(run: Path) -> Outcome:
    """Return what must not depend on where a run was carried out."""
    files = [*sorted((run / "genomes").iterdir()), run / "champion.safetensors"]
    found = {file.name: file.read_bytes() for file in files}
    return found | {"leaderboard.csv": stable_bytes(run / "leaderboard.csv")}


class Run:
    """A run that was started on a host, by a user whose files are only there.

    Args:
        hosts: The hosts, in a cluster.
        name: The host of the driver.
        generations: How many generations there are.
        options: Of ``cultivar evolve``, besides the address.
        address: Of the cluster; None: that of the head.

    Attributes:
        directory: The run directory, seen from outside.
    """

    def __init__(
        self,
        hosts: Hosts,
        name: str = DRIVER,
        generations: int = 2,
        options: tuple[str, ...] = (),
        address: str | None = None,
    ) -> None:
        disk = hosts.outside(name)
        (disk / "newcomer.py").write_text(OPERATOR, encoding="utf-8")
        self.generations = generations
        folder = f"run{len(list(disk.glob('run*')))}"
        self.directory = disk / folder
        self._errors = disk / f"errors-of-{folder}"
        address = address or f"{hosts.address(HEAD)}:{PORT}"
        command = arguments(hosts.disk, folder, generations)
        with self._errors.open("wb") as errors:
            self._process = hosts.start(
                name,
                ["cultivar", *command, "--address", address, *options],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )

    def births(self) -> list[dict[str, Any]]:
        """Return what the journal tells of the births so far."""
        journal = self.directory / "journal.jsonl"
        if not journal.exists():
            return []
        lines = journal.read_text(encoding="utf-8").split("\n")[:-1]  # the last may be half a line
        events = [json.loads(line)["event"] for line in lines]
        return [event for event in events if event.get("phase") == "children"]

    def nodes(self, host: str) -> list[str]:
        """Return the names of the Ray nodes of a host that births have come from, in that order."""
        names = [event["node"] for event in self.births()]
        return [name for name in dict.fromkeys(names) if name.partition("/")[0] == host]

    def statuses(self) -> set[str]:
        """Return what became of the births so far."""
        return {event["status"] for event in self.births()}

    def repeated(self) -> int:
        """Return how many births there are that were dispatched more than once."""
        return sum(event["attempts"] > 1 for event in self.births())

    def wait_until(self, happened: Callable[[], object]) -> float:
        """Wait for something to happen while the run goes on; return the seconds."""
        started = time.monotonic()
        while not happened():
            assert self._process.poll() is None, f"it ended too early: {self.said()}"
            assert time.monotonic() < started + PATIENCE_S, f"it never happened: {self.said()}"
            time.sleep(0.05)
        return time.monotonic() - started

    def end(self) -> Outcome:
        """Wait for the champion, and return what came out."""
        assert self._process.wait(timeout=PATIENCE_S) == 0, self.said()
        return outcome(self.directory)

    def said(self) -> str:
        """Return what the command has printed."""
        return self._errors.read_text(encoding="utf-8", errors="replace")


class Cluster:
    """A head and a driver's host without CPUs, and two workers with one each.

    Attributes:
        hosts: The hosts.
    """

    def __init__(self, hosts: Hosts, system_config: str) -> None:
        self.hosts = hosts
        self._head_options = ["--include-dashboard=false", f"--system-config={system_config}"]

    def start(self, *names: str) -> None:
        """Make nodes of hosts that may be off, cut off, or left by Ray; those that are stay so.

        Raises:
            RayStartError: Ray did not start on one of them.
        """
        for name in names:
            if not self.hosts.is_on(name):
                self.hosts.boot(name)
            self.hosts.plug(name)
        missing = [name for name in names if self.raylet(name) is None]
        if HEAD in missing:
            missing.remove(HEAD)
            self.hosts.start_ray(HEAD, 0, self._head_options)
        # More at once would wait for each other, and Ray waits for each only so long.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda name: self.hosts.start_ray(name, int(name in WORKERS)), missing))

    def raylet(self, name: str) -> int | None:
        """Return the process of Ray that makes a host a node, or None."""
        command = "grep --line-regexp --files-with-matches raylet /proc/[0-9]*/comm || true"
        found = self.hosts.run(name, ["sh", "-c", command]).split("/")  # /proc/17/comm
        return int(found[2]) if len(found) > 1 else None
