"""A node that joins while work goes on is used if it would do it as the driver would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import DispatchConfig
from engine.dispatch.executor import Batch

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Return what came of work during which a stranger joined, and then a node like the first."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("join_nodes.py"), folder],
            cwd=folder,  # workers find what lies there, before anything of their own
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.slow
def test_a_node_with_other_files_is_told_of_once_and_adds_no_result(found) -> None:
    (refusal,) = [note for note in found["notes"] if "no work is sent" in note]
    assert f"/{found['stranger']}, which has other files of cultivar" in refusal
    assert found["by"] == ["ours"]
    assert found["stranger"] not in found["nodes"]


@pytest.mark.slow
def test_a_node_like_the_others_is_used(found) -> None:
    assert any(f"/{found['friend']} joins with 1 CPUs" in note for note in found["notes"])
    assert len(found["nodes"]) == 2
    assert found["friend"] in found["nodes"]
    assert found["slots"] == 2


@pytest.mark.slow
def test_every_plan_has_one_result(found) -> None:
    assert found["twice"] == 0


@dataclass
class Doubtful:
    """A roster that doubts the first answer, and takes the first failure for that of a stranger."""

    slots: int = 2
    barred: frozenset[str] = frozenset()
    n_asked: int = 0

    def trusts(self, node: str) -> bool:
        self.n_asked += 1
        return self.n_asked > 1

    def is_strange(self, sent_at: float, failed_at: float) -> bool:
        self.n_asked += 1
        return self.n_asked == 1


def carry_out(plans: list[Any], context: Any, roster: Doubtful) -> list[Any]:
    from engine.dispatch.ray_executor import RayExecutor

    settings = DispatchConfig(attempts=1, speculation=0)
    executor = RayExecutor(settings, [sys.modules[__name__]], roster=roster)  # type: ignore[arg-type]
    batches = [Batch.of([plan], {}) for plan in plans]
    return [r for done in executor.run(context, batches, threading.Event()) for r in done]


def test_what_a_node_answers_that_is_not_trusted_is_done_again(
    ray_cluster, context, make_plan, clean
) -> None:
    roster = Doubtful()
    results = carry_out([make_plan(index) for index in range(4)], context, roster)
    assert {result.index: result.genome.id for result in results} == {
        index: clean[index].genome.id for index in range(4)
    }
    assert (len(results), roster.n_asked) == (4, 5)
    assert sorted(result.attempts for result in results) == [1, 1, 1, 2]


def test_a_failure_that_may_be_a_strangers_does_not_count(
    ray_cluster, context, make_plan, tmp_path
) -> None:
    # A plan whose whole batch fails: it weighs more teachers than there are.
    plan = make_plan(0)
    bad = replace(plan, finetune=replace(plan.finetune, teacher_weights=(0.2, 0.3, 0.5)))
    roster = Doubtful()
    (result,) = carry_out([bad], context, roster)
    assert result.status == "failed"
    assert (roster.n_asked, result.attempts) == (2, 2)
