"""Runs on several hosts, and what happens to these meanwhile: the outcome is that of one process.

The hosts share no disk, ask for a token, and are reached through a network that can be cut.
"""

from __future__ import annotations

import time

import pytest
from cluster_hosts import HEAD

pytestmark = pytest.mark.cluster


def test_a_run_uses_all_hosts_and_files_that_lie_on_one_of_them(
    make_cluster, start_run, serial
) -> None:
    hosts = make_cluster(2)
    run = start_run(hosts)
    found = run.end()
    assert run.hosts() == {"worker1", "worker2"}
    assert {row["operator"] for row in run.children()} == {"meet"}
    for worker in ("worker1", "worker2"):  # but for what Ray keeps
        disk = hosts.outside(worker)
        assert {path.name for path in disk.iterdir()} <= {".ray", "ray"}
        assert not list(disk.rglob("newcomer.py"))
    assert hosts.outside(HEAD).joinpath("run", "champion.json").is_file()
    assert found == serial


def test_a_cable_that_was_unplugged_for_a_while_changes_nothing(
    make_cluster, start_run, serial
) -> None:
    hosts = make_cluster(2)
    run = start_run(hosts)
    run.wait_until(lambda: "worker2" in run.hosts())
    time.sleep(1)  # batches of the next generation are under way
    hosts.unplug("worker2")
    time.sleep(10)
    hosts.plug("worker2")
    assert run.still_goes_on()
    found = run.end()
    assert {row["status"] for row in run.children()} == {"ok"}
    assert found == serial


def test_a_host_without_power_changes_nothing(make_cluster, start_run, serial) -> None:
    hosts = make_cluster(2)
    run = start_run(hosts)
    run.wait_until(lambda: "worker2" in run.hosts())
    time.sleep(1)  # batches of the next generation are under way
    hosts.power_off("worker2")
    assert run.still_goes_on()
    found = run.end()
    assert {row["status"] for row in run.children()} == {"ok"}
    assert found == serial


def test_a_host_that_comes_later_is_used(make_cluster, start_run, serial) -> None:
    hosts = make_cluster(1)
    run = start_run(hosts)
    run.wait_until(run.has_begun)
    hosts.boot("worker2")
    hosts.start_ray("worker2", 1)
    found = run.end()
    assert run.hosts() == {"worker1", "worker2"}
    assert found == serial
