"""A run on a machine without a Ray node, through the client server of a cluster."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.dispatch.handshake import show_token
from engine.errors import DispatchError
from populations.leaderboard import load_leaderboard, stable_bytes

ROOT = Path(__file__).parents[3]
PLUGIN = """
from strategies.crossover.weighted import WeightedCrossover
from strategies.registry import crossovers


@crossovers.register
class Elsewhere(WeightedCrossover):
    name = "elsewhere"


@crossovers.register
class Unreadable(WeightedCrossover):
    name = "unreadable"

    def __reduce__(self):
        return refuse, ()


def refuse():
    raise ValueError("not today")
"""


class Head(NamedTuple):
    """The head of a cluster.

    Attributes:
        port: Where drivers of its own machines join.
        client_port: Where those of any machine do.
        variables: Environment of somebody who may use it.
    """

    port: int
    client_port: int
    variables: dict[str, str]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Run the head of a cluster with two CPUs, on loopback only and with a token."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as home:
        token = Path(home, "token")
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="utf-8")
        variables = {"RAY_AUTH_TOKEN_PATH": str(token), "HOME": home}
        own = {
            "RAY_TMPDIR": home,
            "RAY_AUTH_MODE": "token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every socket on 127.0.0.1
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        port, client_port = free_ports(2)
        with Path(home, "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *("--num-cpus=2", f"--object-store-memory={200 * 2**20}"),
                    *("--node-ip-address=127.0.0.1", f"--port={port}"),
                    *("--include-dashboard=false", f"--ray-client-server-port={client_port}"),
                ],
                env=without_ray() | variables | own,
                cwd=home,
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + 60
            while b"Ray runtime started" not in (said := Path(home, "log").read_bytes()):
                assert process.poll() is None, said.decode()
                assert time.monotonic() < deadline, said.decode()
                time.sleep(0.1)
            yield Head(port, client_port, variables)
        finally:
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    if entry.name.isdigit() and os.getsid(int(entry.name)) == process.pid:
                        os.kill(int(entry.name), signal.SIGKILL)
            process.wait()


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        unused = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in unused:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in unused]


def without_ray() -> dict[str, str]:
    """Return our environment without what a test session has said of Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def cultivar(*arguments: Any, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *map(str, arguments)],
        cwd=ROOT,
        env=without_ray() | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_through_ray_client_has_the_bytes_of_a_serial_one(head, tmp_path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    run = ("evolve", "smoke", "--quiet", "--plugin", tmp_path / "plugin.py")
    run += ("--operator", "elsewhere")
    alone = cultivar(*run, "--workers", 0, "--run-dir", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    address = f"ray://127.0.0.1:{head.client_port}"
    done = cultivar(*run, "--address", address, "--run-dir", tmp_path / "client", **head.variables)
    assert done.returncode == 0, done.stderr
    for name in ("champion.safetensors", "genomes/gen-0002.safetensors"):
        assert (tmp_path / "client" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    boards = [tmp_path / name / "leaderboard.csv" for name in ("alone", "client")]
    assert stable_bytes(boards[0]) == stable_bytes(boards[1])
    frame = load_leaderboard([tmp_path / "client"])
    children = frame[frame["kind"] == "child"]
    assert set(children["operator"]) == {"elsewhere"}
    # Named by host and node: they were born on the cluster.
    assert children["node"].str.fullmatch(rf"{re.escape(socket.gethostname())}/[0-9a-f]{{8}}").all()


@pytest.mark.ray
@pytest.mark.slow
def test_a_plan_that_cannot_be_unpacked_does_not_break_the_connection(head, tmp_path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    run = ("evolve", "smoke", "--quiet", "--plugin", tmp_path / "plugin.py")
    run += ("--operator", "elsewhere", "--operator", "unreadable")
    address = f"ray://127.0.0.1:{head.client_port}"
    done = cultivar(*run, "--address", address, "--run-dir", tmp_path / "run", **head.variables)
    assert done.returncode == 0, done.stderr
    frame = load_leaderboard([tmp_path / "run"])
    statuses = frame[frame["kind"] == "child"].groupby("operator")["status"].unique()
    assert set(statuses["elsewhere"]) == {"ok"}
    assert set(statuses["unreadable"]) == {"failed"}
    reasons = frame[frame["operator"] == "unreadable"]["reason"]
    assert reasons.str.contains("not today").all()


@pytest.mark.ray
@pytest.mark.slow
def test_the_doctor_looks_at_a_cluster_through_ray_client(head) -> None:
    done = cultivar("doctor", "--address", f"ray://127.0.0.1:{head.client_port}", **head.variables)
    assert done.returncode == 0, done.stderr
    assert "with 2 workers, which computed" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_a_head_on_loopback_is_joined_from_its_own_machine(head) -> None:
    code = (
        "import sys\n"
        "from engine.dispatch.ray_session import joined_session\n"
        "with joined_session(sys.argv[1]):\n"
        "    import ray\n"
        "    print(ray.get(ray.remote(lambda: 2**10).remote()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"127.0.0.1:{head.port}"],
        cwd=ROOT,
        env=without_ray() | head.variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["1024"], done.stderr


@pytest.fixture
def stranger(monkeypatch, tmp_path) -> pytest.MonkeyPatch:
    """Be somebody without a token."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.mark.ray
@pytest.mark.slow
def test_the_client_server_is_asked_for_what_it_wants(head, stranger) -> None:
    address = f"ray://127.0.0.1:{head.client_port}"
    with pytest.raises(DispatchError, match=f"cluster at {address} asks for a token, and this acc"):
        show_token(address, allow_insecure=True)
    stranger.setenv("RAY_AUTH_TOKEN", "f" * 64)
    with pytest.raises(DispatchError, match="does not take the token of RAY_AUTH_TOKEN"):
        show_token(address, allow_insecure=True)
    stranger.delenv("RAY_AUTH_TOKEN")
    for name, value in head.variables.items():
        stranger.setenv(name, value)
    assert show_token(address, allow_insecure=False)


@pytest.mark.ray
@pytest.mark.slow
def test_the_two_ports_of_a_head_are_told_apart(head, stranger) -> None:
    with pytest.raises(DispatchError, match=r"no client server listens at ray://.* usually 10001"):
        show_token(f"ray://127.0.0.1:{head.port}", allow_insecure=False)
    address = f"127.0.0.1:{head.client_port}"
    with pytest.raises(
        DispatchError, match=f"not listen at {address}: .* or write ray://{address}"
    ):
        show_token(address, allow_insecure=False)
