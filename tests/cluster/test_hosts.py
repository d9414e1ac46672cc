"""Runs on several hosts, and what happens to these meanwhile: the outcome is that of one process.

The hosts share no disk, ask for a token, and are reached through a network that can be cut.
"""

from __future__ import annotations

import time

import pytest
from cluster_hosts import HEAD, PORT
from cluster_runs import DRIVER, WORKERS, Run

pytestmark = pytest.mark.cluster

SHORT_S = 5
"""Of silence, which Ray as the documentation sets it bears for some twenty."""
UNHARMED = {"ok", "rejected"}  # the latter are children that there were already
# Waits on the head until Ray has given up all nodes with CPUs.
UNTIL_GIVEN_UP = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
while any(node["Alive"] and node["Resources"].get("CPU") for node in ray.nodes()):
    time.sleep(0.2)
"""


def told(births: int) -> str:
    """Return how many births were dispatched more than once."""
    return f"{births} births dispatched more than once" if births else "none"


def test_a_run_uses_all_hosts_and_files_that_lie_on_one_of_them(cluster, serial) -> None:
    run = Run(cluster.hosts)
    assert run.end() == serial(run)
    assert all(run.nodes(worker) for worker in WORKERS)
    assert {event["node"].partition("/")[0] for event in run.births()} == set(WORKERS)
    for host in (HEAD, *WORKERS):  # but for what Ray keeps
        disk = cluster.hosts.outside(host)
        assert {path.name for path in disk.iterdir()} <= {".ray", "ray"}
        assert not list(disk.rglob("newcomer.py"))
    assert (run.directory / "champion.json").is_file()


def test_a_host_outside_the_cluster_gets_the_same_through_ray_client(cluster, serial) -> None:
    hosts = cluster.hosts
    hosts.boot("outside")
    run = Run(hosts, "outside", address=f"ray://{hosts.address(HEAD)}:10001")
    assert run.end() == serial(run)
    assert all(run.nodes(worker) for worker in WORKERS)
    assert cluster.raylet("outside") is None


def test_a_cable_that_was_unplugged_for_a_while_changes_nothing(cluster, serial, fault_row) -> None:
    hosts = cluster.hosts
    before = cluster.raylet("worker2")
    run = Run(hosts, generations=4)
    run.wait_until(lambda: run.nodes("worker2"))
    hosts.unplug("worker2")
    time.sleep(SHORT_S)
    seen = run.births()
    hosts.plug("worker2")
    back_s = run.wait_until(
        lambda: any("worker2" in birth["node"] for birth in run.births()[len(seen) :])
    )
    assert run.end() == serial(run)
    assert cluster.raylet("worker2") == before  # Ray has not given it up
    assert len(run.nodes("worker2")) == 1
    assert run.statuses() <= UNHARMED
    fault_row(
        fault="cable unplugged for a while",
        how=f"a worker's network interface down for {SHORT_S} s",
        noticed=f"not at all by Ray; its next birth came {back_s:.1f} s after the cable was back",
        extra=told(run.repeated()),
        outcome="same bytes",
    )


def test_hosts_that_were_cut_off_for_too_long_can_come_back(cluster, serial, fault_row) -> None:
    hosts = cluster.hosts
    run = Run(hosts)
    run.wait_until(lambda: all(run.nodes(worker) for worker in WORKERS))
    address = f"{hosts.address(HEAD)}:{PORT}"
    cut = time.monotonic()
    for worker in WORKERS:
        hosts.unplug(worker)
    hosts.run(HEAD, ["python", "-W", "ignore", "-c", UNTIL_GIVEN_UP, address])
    given_up_s = time.monotonic() - cut
    for worker in WORKERS:
        hosts.plug(worker)
    ended_s = run.wait_until(lambda: not any(map(cluster.raylet, WORKERS)))
    before = len(run.births())
    cluster.start(*WORKERS)
    again_s = run.wait_until(lambda: len(run.births()) > before)
    assert run.end() == serial(run)
    assert run.statuses() <= UNHARMED
    assert any(len(run.nodes(worker)) == 2 for worker in WORKERS)  # Ray counts it as another node
    fault_row(
        fault="cables unplugged for too long, no worker left",
        how="all workers cut off until Ray has given them up, cables put back, `ray start` there",
        noticed=f"{given_up_s:.0f} s; {ended_s:.0f} s after the cables are back their Ray has "
        f"ended, {again_s:.0f} s after `ray start` a birth has come",
        extra=told(run.repeated()),
        outcome="same bytes, once there are workers again",
    )


def test_a_host_without_power_changes_nothing_and_is_used_once_it_is_back(
    cluster, serial, fault_row
) -> None:
    hosts = cluster.hosts
    run = Run(hosts, generations=6)
    run.wait_until(lambda: run.nodes("worker2"))
    hosts.power_off("worker2")
    noticed_s = run.wait_until(run.repeated)
    cluster.start("worker2")
    joined_s = run.wait_until(lambda: len(run.nodes("worker2")) == 2)
    assert run.end() == serial(run)
    assert run.statuses() <= UNHARMED
    fault_row(
        fault="power of a worker lost",
        how="its processes killed behind a dead network interface",
        noticed=f"its first birth came from the other worker after {noticed_s:.0f} s",
        extra=told(run.repeated()),
        outcome="same bytes",
    )
    births = sum(birth["node"] == run.nodes("worker2")[-1] for birth in run.births())
    fault_row(
        fault="a worker joins",
        how="that one switched on again, `ray start` there",
        noticed=f"its first birth came after {joined_s:.0f} s",
        extra="none",
        outcome=f"same bytes, {births} births of {len(run.births())} from there",
    )


def test_a_supervised_run_goes_on_with_a_new_head(cluster, serial, fault_row) -> None:
    hosts = cluster.hosts
    run = Run(hosts, options=("--supervise",))
    run.wait_until(run.births)
    hosts.power_off(HEAD)
    lost = time.monotonic()
    cluster.start(HEAD)
    run.wait_until(lambda: "it is started again in" in run.said())
    ended_s = time.monotonic() - lost
    for name in (DRIVER, *WORKERS):
        hosts.run(name, ["ray", "stop"])
    before = len(run.births())
    cluster.start(DRIVER, *WORKERS)
    run.wait_until(lambda: len(run.births()) > before)
    again_s = time.monotonic() - lost
    assert run.end() == serial(run)
    assert run.statuses() <= UNHARMED
    keys = [(birth["generation"], birth["index"]) for birth in run.births()]
    assert len(keys) == len(set(keys))
    fault_row(
        fault="head lost, with `--supervise`",
        how="power off and on; `ray start` there at once, then on all other hosts",
        noticed=f"Ray ended the driver within {ended_s:.0f} s, for another head answered (without "
        f"any: after 60 s); the next birth came after {again_s:.0f} s",
        extra="at most 3 batches of 2, which were in flight",
        outcome="same bytes, no birth twice",
    )
