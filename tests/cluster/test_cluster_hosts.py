"""The hosts themselves, without Ray: apart from each other, and gone when they should be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster_hosts
import pytest
from cluster_hosts import HEAD, NOT_PERMITTED, Hosts, NotPermittedError, main

SCRIPT = Path(__file__).parents[2] / "scripts" / "cluster_hosts.py"
# Makes two hosts, tells the folder and the ids of their first processes, and waits.
HOLDER = """
import sys, time
from cluster_hosts import Hosts
with Hosts() as hosts:
    for name in ("one", "two"):
        hosts.boot(name)
        hosts.start(name, ["sleep", "1000"])
    print(hosts.disk.parent, *(pid for _, pid in hosts._running.values()), flush=True)
    time.sleep(1000)
"""
ASK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 0.5)
except OSError as error:
    print(type(error).__name__)
"""
PROCESSES = "import os; print(*filter(str.isdigit, os.listdir('/proc')))"


@pytest.fixture
def hosts():
    try:
        with Hosts() as made:
            yield made
    except NotPermittedError as error:
        pytest.skip(str(error))


def answers(hosts: Hosts, asked: str) -> bool:
    """Return whether a host answers, if only that nothing listens on that port."""
    said = hosts.run("one", [sys.executable, "-c", ASK, asked])
    assert said.strip() in {"ConnectionRefusedError", "TimeoutError", "OSError"}
    return said.strip() == "ConnectionRefusedError"


@pytest.mark.cluster
def test_hosts_have_names_addresses_processes_and_disks_of_their_own(hosts) -> None:
    hosts.boot("one")
    hosts.boot("two")
    assert hosts.address("one") != hosts.address("two")
    for name in ("one", "two"):
        assert hosts.run(name, ["hostname"]).strip() == name
        # `sleep`, which keeps the host up, and the one that looks.
        assert len(hosts.run(name, [sys.executable, "-c", PROCESSES]).split()) == 2
        assert not list(hosts.outside(name).glob("written"))
        hosts.run(name, ["touch", hosts.disk / "written"])
        assert list(hosts.outside(name).glob("written"))
        assert hosts.run(name, ["ls", hosts.disk.parent / "hosts"]) == ""
    assert answers(hosts, "two")


@pytest.mark.cluster
def test_cables_can_be_pulled_and_put_back_and_power_cut_and_restored(hosts) -> None:
    hosts.boot("one")
    hosts.boot("two")
    assert answers(hosts, "two")
    hosts.unplug("two")
    assert not answers(hosts, "two")
    hosts.plug("two")
    assert answers(hosts, "two")
    sleeper = hosts.start("two", ["sleep", "1000"])
    hosts.run("two", ["touch", hosts.disk / "kept"])
    hosts.power_off("two")
    assert sleeper.wait(timeout=5) == -signal.SIGKILL
    assert not answers(hosts, "two")
    hosts.boot("two")
    assert answers(hosts, "two")
    assert hosts.run("two", ["ls", hosts.disk]) == "kept\n"


@pytest.mark.cluster
def test_two_sets_of_hosts_do_not_see_each_other(hosts) -> None:
    hosts.boot("one")
    with Hosts() as others:
        others.boot("one")
        others.boot("two")
        assert others.address("one") == hosts.address("one")
        assert answers(others, others.address("two"))
        assert not answers(hosts, others.address("two"))


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_however_it_ends(hosts, number) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    folder, *pids = holder.stdout.readline().split()
    assert len(pids) == 3
    assert all(Path("/proc", pid).exists() for pid in pids)
    holder.send_signal(number)
    holder.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(Path("/proc", pid).exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if number == signal.SIGINT:
        assert not Path(folder).exists()
    else:
        subprocess.run(["rm", "-r", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_a_machine_that_lacks_a_program_is_told_so(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "true"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == NOT_PERMITTED
    assert re.fullmatch(
        r"cluster_hosts.py: making 3 hosts .*\n"
        r"cluster_hosts.py: hosts are made by ip, nsenter, setpriv, unshare, not found here\n",
        done.stderr,
    )


@pytest.mark.cluster
def test_a_ray_that_does_not_start_is_a_sentence(hosts, monkeypatch, capsys) -> None:
    def start_wrongly(n_workers, options):
        hosts.boot(HEAD)
        hosts.start_ray(HEAD, 0, ["--system-config=none"])

    monkeypatch.setattr(cluster_hosts, "cluster", start_wrongly)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "true"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main() == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    making, why = capsys.readouterr().err.splitlines()
    assert "making 3 hosts" in making
    assert re.match(r"\S+: Ray did not start on head: .*--system-config", why), why


@pytest.mark.cluster
def test_somebody_who_may_not_make_hosts_is_told_so(hosts) -> None:
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"),
            *(sys.executable, str(SCRIPT), "true"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == NOT_PERMITTED, done.stderr
    assert "no host can be made here: " in done.stderr
