"""Hosts out of namespaces, and a run on them; skipped where hosts cannot be made."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from populations.leaderboard import stable_bytes

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "cluster_hosts.py"
sys.path.insert(0, str(SCRIPT.parent))

from cluster_hosts import HEAD, PORT, Hosts, NotPermittedError, cluster  # noqa: E402

# So much fine-tuning that a batch takes a second or two, which is what batches are for.
SETTINGS = {
    "finetune.steps": 4000,
    "evolution.generations": 3,
    "evolution.children": 12,
    "evolution.batch_size": 2,
}
OPERATOR = """
from strategies import CrossoverOperator


class MeetCrossover(CrossoverOperator):
    name = "meet"

    def cross(self, parents, rng):
        first, second = parents
        t = rng.uniform(0, 0.8)
        return {name: first[name] + t * (second[name] - first[name]) for name in first}
"""
PATIENCE_S = 600


def arguments(disk: Path, run: str) -> list[str | Path]:
    """Return the command of a run that uses an operator from a file."""
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    plugin = ["--plugin", disk / "newcomer.py", "--operator", "meet"]
    return ["evolve", "smoke", "--run-dir", disk / run, *plugin, *settings]


def outcome(run: Path) -> dict[str, bytes]:
    """Return what must not depend on where a run was carried out."""
    files = [*sorted((run / "genomes").iterdir()), run / "champion.safetensors"]
    found = {file.name: file.read_bytes() for file in files}
    return found | {"leaderboard.csv": stable_bytes(run / "leaderboard.csv")}


class Run:
    """A run that was started on the head of a cluster, by a user whose files are only there."""

    def __init__(self, hosts: Hosts) -> None:
        disk = hosts.outside(HEAD)
        (disk / "newcomer.py").write_text(OPERATOR, encoding="utf-8")
        self.directory = disk / "run"
        self._errors = disk / "errors"
        address = f"{hosts.address(HEAD)}:{PORT}"
        with self._errors.open("wb") as errors:
            self._process = hosts.start(
                HEAD,
                ["cultivar", *arguments(hosts.disk, "run"), "--address", address],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )

    def children(self) -> list[dict[str, str]]:
        """Return the rows of the births so far."""
        leaderboard = self.directory / "leaderboard.csv"
        if not leaderboard.exists():
            return []
        with leaderboard.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["created_at"]]  # the whole of it
        return [row for row in rows if row["kind"] == "child" and row["child"]]

    def hosts(self) -> set[str]:
        """Return the names of the hosts that children have come from so far."""
        return {row["node"].partition("/")[0] for row in self.children()}

    def has_begun(self) -> bool:
        return (self.directory / "leaderboard.csv").exists()

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait for something to happen while the run goes on."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert self._process.poll() is None, f"it ended too early: {self._said()}"
            assert time.monotonic() < deadline, f"it never happened: {self._said()}"
            time.sleep(0.1)

    def still_goes_on(self) -> bool:
        return self._process.poll() is None

    def end(self) -> dict[str, bytes]:
        """Wait for the champion, and return what came out."""
        assert self._process.wait(timeout=PATIENCE_S) == 0, self._said()
        return outcome(self.directory)

    def _said(self) -> str:
        return self._errors.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="session")
def system_config() -> str:
    """Return the limits on silence that the documentation advises, as they are written there."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"--system-config='(\{[^']*\})'", text)
    assert isinstance(found, str)
    return found


MakeCluster = Callable[..., Hosts]


@pytest.fixture
def start_run() -> Callable[[Hosts], Run]:
    """Return what starts a run on a cluster."""
    return Run


@pytest.fixture
def make_cluster(system_config: str) -> Iterator[MakeCluster]:
    """Return a maker of clusters, which are taken down at the end."""
    with ExitStack() as stack:

        def make(n_workers: int, head_options: Sequence[str] | None = None) -> Hosts:
            options = [f"--system-config={system_config}", *(head_options or [])]
            try:
                return stack.enter_context(cluster(n_workers, options))
            except NotPermittedError as error:
                pytest.skip(str(error))

        yield make


@pytest.fixture(scope="session")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return what comes out of the same run in one process."""
    folder = tmp_path_factory.mktemp("serial")
    (folder / "newcomer.py").write_text(OPERATOR, encoding="utf-8")
    command = [sys.executable, "-m", "engine.cli.main", *arguments(folder, "run")]
    done = subprocess.run(
        [*command, "--workers", "0"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return outcome(folder / "run")
