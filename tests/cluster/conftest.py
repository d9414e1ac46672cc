"""Hosts out of namespaces, and a cluster of them; skipped where hosts cannot be made."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(Path(__file__).parent)]

from cluster_hosts import HEAD, Hosts, NotPermittedError, RayStartError  # noqa: E402
from cluster_runs import (  # noqa: E402
    BIRTH_S,
    DRIVER,
    OPERATOR,
    WORKERS,
    Cluster,
    Outcome,
    Run,
    arguments,
    outcome,
)


@pytest.fixture(scope="session")
def system_config() -> str:
    """Return the limits on silence that the documentation advises, as a user gives them to Ray."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (file,) = re.findall(r'--system-config="\$\(cat ([^)]+)\)"', page)
    return (ROOT / file).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def shared_cluster(system_config: str) -> Iterator[Cluster]:
    """Keep one cluster for all runs that do not need one of their own: starting it takes long."""
    try:
        with Hosts(BIRTH_S) as hosts:
            yield Cluster(hosts, system_config)
    except NotPermittedError as error:
        pytest.skip(str(error))


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """Return the cluster, all of whose nodes are there again, whatever happened to them."""
    try:
        shared_cluster.start(HEAD, DRIVER, *WORKERS)
    except RayStartError as error:
        pytest.fail(str(error), pytrace=False)
    return shared_cluster


@pytest.fixture(scope="session")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run], Outcome]:
    """Return what tells the outcome of the same run in one process."""

    @cache
    def of(generations: int) -> Outcome:
        folder = tmp_path_factory.mktemp("serial")
        (folder / "newcomer.py").write_text(OPERATOR, encoding="utf-8")
        command = [sys.executable, "-m", "engine.cli.main", *arguments(folder, "run", generations)]
        done = subprocess.run(
            [*command, "--workers", "0"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return outcome(folder / "run")

    return lambda run: of(run.generations)
