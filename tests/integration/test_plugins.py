"""Operators of a user's own: on machines that never saw their file, and when they are broken."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from populations.leaderboard import stable_bytes

ROOT = Path(__file__).parents[2]
# Two Ray nodes of one slot each, in a process of their own until its input ends.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
SMALL: dict[str, Any] = {
    "seed": 5,
    "teachers": {"hidden": [16, 16], "training": {"steps": [12000, 8000]}},
    "states": {"size": 512},
    "network": {"hidden": [4, 4]},
    "distillation": {"students": 6, "steps": 100, "ancestor_steps": 100},
    "evaluation": {"episodes": 4, "holdout_episodes": 8, "champion_candidates": 2},
}
NEWCOMER = """
from strategies import CrossoverOperator, Mutation, Selection

FAR = 0.8


def between(a, b, t):
    return a + t * (b - a)


class MeetCrossover(CrossoverOperator):
    name = "meet"

    def __init__(self, reach: float = FAR) -> None:
        self.reach = reach

    def cross(self, parents, rng):
        first, second = parents
        t = rng.uniform(0, self.reach)
        return {name: between(first[name], second[name], t) for name in parents.spec.shapes}


class JoltMutation(Mutation):
    name = "jolt"

    def __init__(self, size: float = 0.01) -> None:
        self.size = size

    def mutate(self, child, rng):
        return {name: w * (1 + rng.uniform(0, self.size)) for name, w in child.weights.items()}


class AlwaysTheBestSelection(Selection):
    name = "always_the_best"

    def draw(self, n_candidates, n_parents, rng):
        return list(range(n_parents))
"""
IMPORTABLE = """
from strategies import CrossoverOperator


class HalvesCrossover(CrossoverOperator):
    name = "halves"

    def cross(self, parents, rng):
        first, second = parents
        return {name: 0.5 * first[name] + 0.5 * second[name] for name in parents.spec.shapes}
"""
# Each way to break the contract, by the name of the operator: what `cross` does.
BROKEN = {
    "raises": 'raise KeyError("network.1.weight")',
    "too_small": "return {name: first[name][:1] for name in first}",
    "not_a_number": 'return {name: first[name] * float("nan") for name in first}',
    "scribbles": 'first["network.0.bias"][0] = 7.0; return dict(first)',
    "unlocks": 'first["network.0.bias"].setflags(write=True); return dict(first)',
}
HARMLESS = "return {name: second[name].copy() for name in first}"
CLASS = """
class {cls}Crossover(CrossoverOperator):
    name = "{name}"

    def cross(self, parents, rng):
        first, second = parents
        {body}
"""


def configure(file: Path, plugin: Path, evolution: dict[str, Any], steps: int) -> None:
    """Write the configuration of a run with a plug-in file."""
    settings = {"plugins": [str(plugin)], "finetune": {"steps": steps}, "evolution": evolution}
    file.write_text(json.dumps(SMALL | settings), encoding="utf-8")  # which is YAML, too


def command(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "engine.cli.main", *map(str, arguments)],
        env=inherited | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, out + errors
    assert "champion " in out


def children(run: Path) -> list[dict[str, str]]:
    """Return the rows of all births, without controls and without later evaluations."""
    with (run / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["kind"] == "child" and row["child"]]


def outcome(run: Path) -> dict[str, bytes]:
    """Return what must not depend on where a run was carried out."""
    files = [*sorted((run / "genomes").iterdir()), run / "champion.safetensors"]
    found = {file.name: file.read_bytes() for file in files}
    return found | {"leaderboard.csv": stable_bytes(run / "leaderboard.csv")}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder with a module that the driver and all nodes can import."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "friendly_operators.py").write_text(IMPORTABLE, encoding="utf-8")
    return folder


@pytest.fixture
def two_nodes(installed: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Start two Ray nodes; return their address and the variables of somebody who may use them.

    They listen on loopback only and ask for a token, and share a session by which they are found.
    """
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as home:
        token = Path(home, "token")
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="utf-8")
        Path(home, "ray").mkdir()  # ray_current_cluster goes there
        variables = {
            "RAY_TMPDIR": home,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every socket on 127.0.0.1
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        with Path(home, "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", CLUSTER],
                env=inherited | variables | {"PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"},
                cwd=home,
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, Path(home, "log").read_text(encoding="utf-8")
            yield address, variables
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=20)  # closes its input
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    if entry.name.isdigit() and os.getsid(int(entry.name)) == process.pid:
                        os.kill(int(entry.name), signal.SIGKILL)
            process.wait()


@pytest.mark.ray
def test_operators_of_a_file_work_on_two_nodes_that_never_saw_it(
    installed, request, tmp_path
) -> None:
    plugin = tmp_path / "newcomer.py"
    plugin.write_text(NEWCOMER, encoding="utf-8")
    config = tmp_path / "config.yaml"
    recipes = [
        {"operator": "meet", "params": {"reach": 0.9}},
        {"operator": "friendly_operators:HalvesCrossover"},
    ]
    evolution = {
        "generations": 2,
        "population": 4,
        "elites": 2,
        "controls": 1,
        "children": 12,
        "batch_size": 2,
        "recipes": recipes,
        "mutation": {"name": "jolt"},
        "selection": {"name": "always_the_best"},
    }
    # Steps enough to keep a node busy while the other one takes the next batch.
    configure(config, plugin, evolution, steps=1000)
    importable = {"PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"}
    alone = command("evolve", config, "--workers", "0", "--run-dir", tmp_path / "1", **importable)
    address, variables = request.getfixturevalue("two_nodes")  # meanwhile
    finish(alone)

    run = tmp_path / "2"
    arguments = ("evolve", config, "--address", address, "--run-dir", run)
    spread = command(*arguments, **importable, **variables)
    deadline = time.monotonic() + 60
    while not (journal := run / "journal.jsonl").exists() or b'"run"' not in journal.read_bytes():
        assert spread.poll() is None, spread.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    plugin.unlink()
    assert b'"phase":"children"' not in journal.read_bytes()
    finish(spread)

    born = children(run)
    assert {row["status"] for row in born} <= {"ok", "rejected"}
    assert sum(row["status"] == "ok" for row in born) >= 12
    assert {row["operator"] for row in born} == {"meet", "halves"}
    assert {row["operator_params"] for row in born if row["operator"] == "meet"} == {
        '{"reach":0.9}'
    }
    assert {json.loads(row["mutation"])["name"] for row in born} == {"jolt"}
    for generation in ("1", "2"):
        assert len({row["parents"] for row in born if row["generation"] == generation}) == 1
    nodes = {row["node"] for row in born}
    assert len(nodes) == 2, nodes
    assert {node.partition("/")[0] for node in nodes} == {socket.gethostname()}
    assert {row["node"] for row in children(tmp_path / "1")} == {socket.gethostname()}
    assert outcome(run) == outcome(tmp_path / "1")


def test_broken_operators_fail_their_own_children_and_nothing_else(tmp_path) -> None:
    plugin = tmp_path / "mixed.py"
    config = tmp_path / "config.yaml"
    recipes = [{"operator": name} for name in ("weighted", "weighted", *BROKEN)]
    evolution = {
        "generations": 1,
        "population": 4,
        "elites": 2,
        "controls": 1,
        "children": 36,
        "batch_size": 5,
        "recipes": recipes,
    }
    configure(config, plugin, evolution, steps=20)
    runs = {}
    for way, bodies in (("broken", BROKEN), ("harmless", dict.fromkeys(BROKEN, HARMLESS))):
        classes = [
            CLASS.format(cls=name.title().replace("_", ""), name=name, body=body)
            for name, body in bodies.items()
        ]
        plugin.write_text("from strategies import CrossoverOperator\n" + "".join(classes))
        finish(command("evolve", config, "--workers", "0", "--run-dir", tmp_path / way))
        runs[way] = {row["child"]: row for row in children(tmp_path / way)}

    expected = {
        "raises": "raises: KeyError: 'network.1.weight'",
        "too_small": "the child of too_small",
        "not_a_number": "the child of not_a_number",
        "scribbles": "scribbles writes into what it was given, which is read-only",
        "unlocks": "unlocks writes into what it was given, which is read-only",
    }
    seen = set()
    for row in runs["broken"].values():
        seen.add(row["operator"])
        if row["operator"] == "weighted":
            # What others do changes nothing: the same child as beside operators that work.
            assert row["status"] == "ok"
            assert row["genome"] == runs["harmless"][row["child"]]["genome"]
            assert row["fitness"] == runs["harmless"][row["child"]]["fitness"]
        else:
            assert row["status"] == "failed"
            assert row["reason"].startswith(expected[row["operator"]]), row["reason"]
            assert row["fitness"] == ""
    assert seen == {"weighted", *BROKEN}
    assert {row["status"] for row in runs["harmless"].values()} == {"ok"}

    # The page about operators says how to list them, and what is said of each.
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    (listing,) = re.findall(r"^`cultivar (leaderboard RUN [^`]*)`", page, re.MULTILINE)
    listed = command(*shlex.split(listing.replace("RUN", str(tmp_path / "broken"))))
    out, errors = listed.communicate(timeout=60)
    assert listed.returncode == 0, errors
    assert set(BROKEN) <= {line.split()[0] for line in out.splitlines() if line}
    for said in ("raises: KeyError: ", "the child of raises", "raises writes into what it was"):
        assert f"`{said.replace('raises', 'stroll').replace('KeyError', 'ValueError')}" in page
