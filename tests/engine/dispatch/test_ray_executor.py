"""What the executor makes of trouble that takes hours, on a cluster that only pretends."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest
from fake_ray import FakeRay, Host, Plan, Told, carry_out
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import DispatchConfig
from engine.dispatch.executor import Batch

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]  # which is only imported
HOUR = 3600.0
OUTCOMES = {
    "good": "ok",
    "raises": "failed",
    "crashes": "failed",
    "cannot be sent": "failed",
    "ends its node": "lost",
    "never ends": "lost",
}


def run(ray: FakeRay, plans: list[Plan], size: int = 1, **limits: float) -> list[Told]:
    batches = [Batch.of(plans[i : i + size], {}) for i in range(0, len(plans), size)]
    return carry_out(ray, DispatchConfig(**limits), batches, threading.Event())


@pytest.mark.parametrize("speculation", [0, 3])
def test_strangers_that_come_and_go_do_not_excuse_a_child_for_ever(speculation) -> None:
    ray = FakeRay()
    ray.add(2)
    for number in range(1, 500):
        host = Host(f"{number:056x}", problem="is another one")
        ray.at(20.0 * number, lambda host=host: ray.hosts.append(host))
        ray.at(20.0 * number + 15, lambda host=host: ray.lose(host))
    plans = [Plan(0, "crashes", 30), *(Plan(index) for index in range(1, 40))]
    results = {told.index: told for told in run(ray, plans, speculation=speculation)}
    limits = DispatchConfig()
    assert results[0].status == "failed"
    assert results[0].attempts == ray.dispatched[0] < limits.attempts + limits.loss_attempts
    assert {results[index].status for index in range(1, 40)} == {"ok"}


def test_a_child_that_takes_its_node_down_is_lost_though_the_node_is_back_at_once() -> None:
    ray = FakeRay()
    ray.add()
    ray.add()
    ray.after_death = lambda host: ray.add()
    (told,) = run(ray, [Plan(0, "ends its node", 5)], speculation=0)
    assert (told.status, told.attempts, ray.dispatched[0]) == ("lost", 5, 5)


def test_a_stranger_that_spoils_what_it_gets_spoils_no_child() -> None:
    ray = FakeRay()
    ray.add()
    ray.at(3, lambda: ray.add(2, problem="has another version", spoils=True))
    results = run(ray, [Plan(index) for index in range(40)], attempts=1)
    assert {told.status for told in results} == {"ok"}
    assert sum(ray.dispatched.values()) > 40  # some got there
    assert {told.index: told.attempts for told in results} == dict(ray.dispatched)


def test_without_any_worker_nothing_is_lost_however_long_it_takes() -> None:
    ray = FakeRay()
    host = ray.add(2)
    ray.at(2.5, lambda: ray.lose(host))
    ray.at(24 * HOUR, lambda: ray.add(2))
    results = run(ray, [Plan(index) for index in range(40)])
    assert Counter(told.status for told in results) == {"ok": 40}
    assert sum(ray.dispatched.values()) <= 40 + 6
    assert any("nodes: host/" in note for note in ray.notes)


def test_what_waits_while_others_have_all_workers_is_not_lost() -> None:
    ray = FakeRay()
    host = ray.add(2)
    ray.at(2.5, lambda: setattr(host, "taken", 2))
    ray.at(24 * HOUR, lambda: setattr(host, "taken", 0))
    results = run(ray, [Plan(index) for index in range(20)], loss_attempts=1, speculation=0)
    assert Counter(told.status for told in results) == {"ok": 20}
    assert sum(ray.dispatched.values()) == 20


def test_a_plan_whose_pickling_raises_anything_fails_alone() -> None:
    ray = FakeRay()
    ray.add()
    plans = [Plan(0), Plan(1, "cannot be sent"), Plan(2)]
    results = {told.index: told for told in run(ray, plans, size=3)}
    assert {index: told.status for index, told in results.items()} == {
        0: "ok",
        1: "failed",
        2: "ok",
    }
    assert results[1].reason == (
        "it cannot be sent to a worker: RuntimeError: a lock of another process"
    )


@pytest.mark.parametrize(
    "name", ["UnserializableException", "TaskUnschedulableError", "RpcError", "RaySystemError"]
)
def test_whatever_ray_raises_for_a_batch_ends_no_run(name) -> None:
    from ray import exceptions

    ray = FakeRay()
    ray.add()
    error = getattr(exceptions, name)("what Ray says")
    ray.at(0.5, lambda: ray.lose(ray.hosts[0], error))
    ray.at(1, ray.add)
    (told,) = run(ray, [Plan(0)], attempts=1, speculation=0)
    assert told.status == "failed"
    assert told.reason.startswith(name)


def test_a_stall_is_told_though_failures_come_back() -> None:
    ray = FakeRay()
    ray.add()
    plans = [Plan(index, "crashes", 50) for index in range(4)]
    run(ray, plans, size=4, stall_timeout_s=60, speculation=0)
    assert sum("no result for" in note for note in ray.notes) >= 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_whatever_happens_each_plan_gets_exactly_one_result(seed) -> None:
    rng, ray, stop = random.Random(seed), FakeRay(seed), threading.Event()
    limits = DispatchConfig(
        task_timeout_s=20,
        attempts=rng.choice([1, 2, 3]),
        loss_attempts=rng.choice([1, 5, 20]),
        speculation=rng.choice([0, 3]),
    )

    def somebody(act) -> None:
        there = [host for host in ray.hosts if host.is_alive and not host.is_silent]
        if len(there) > 1:
            act(rng.choice(there))

    def silence(host: Host) -> None:
        host.is_silent = True
        ray.at(ray.now + rng.uniform(5, 200), lambda: ray.lose(host))

    acts = [
        lambda: ray.add(rng.randint(1, 4)),
        lambda: ray.add(rng.randint(1, 4), problem="is another one", spoils=rng.random() < 0.5),
        lambda: somebody(ray.lose),
        lambda: somebody(silence),
        *([stop.set] if rng.random() < 0.2 else []),
    ]
    for _ in range(rng.randint(1, 4)):
        ray.add(rng.randint(1, 4))
    for _ in range(rng.randint(0, 12)):
        ray.at(rng.uniform(0, 120), rng.choice(acts))
    for number in range(1, 200):
        ray.at(number * 200, lambda: ray.add(2))
    bad = rng.sample([kind for kind in OUTCOMES if kind != "good"], rng.randint(0, 2))
    n_plans, size = rng.randint(1, 60), rng.choice([1, 4, 16])
    plans = [
        Plan(i, rng.choice(bad) if bad and rng.random() < 0.1 else "good", rng.uniform(0.2, 3))
        for i in range(n_plans)
    ]
    batches = [Batch.of(plans[i : i + size], {}) for i in range(0, n_plans, size)]
    results = carry_out(ray, limits, batches, stop)

    counts = Counter(told.index for told in results)
    assert set(counts.values()) <= {1}
    if not stop.is_set():
        assert len(counts) == n_plans
    if limits.loss_attempts == 20 and "ends its node" not in bad and "never ends" not in bad:
        assert all(told.status == OUTCOMES[plans[told.index].kind] for told in results)
