"""Local sessions are private and leave nothing behind; joining fails fast and says why."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from engine.dispatch import ray_session
from engine.dispatch.ray_session import joined_session
from engine.errors import DispatchError

LOCAL_RUN = """
import json, os, sys
from pathlib import Path
from engine.dispatch.ray_session import local_session

def listening():
    inodes = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes[f"socket:[{fields[9]}]"] = fields[1].rpartition(":")[0]
    found = {}
    for pid in session():
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if target in inodes:
                found.setdefault(inodes[target], []).append(pid)
    return found

def session():
    me = os.getsid(0)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == me:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found

before = dict(os.environ)
with local_session(1):
    import ray
    workers = ray.get(ray.remote(lambda: os.getpid()).remote())
    report = {
        "nodes": [node["NodeManagerAddress"] for node in ray.nodes()],
        "worker_seen": workers in session(),
        "listening": listening(),
        "folders": os.listdir(sys.argv[1]),
        "modes": [oct(path.stat().st_mode & 0o777) for path in Path(sys.argv[1]).iterdir()],
        "token_modes": [
            oct(path.stat().st_mode & 0o777) for path in Path(sys.argv[1]).glob("cv-*/token")
        ],
        "niceness": ray.get(ray.remote(lambda: os.nice(0)).remote()),
    }
after = dict(os.environ)
report["changed"] = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
report["left_over"] = [pid for pid in session() if pid != os.getpid()]
report["folders_after"] = os.listdir(sys.argv[1])
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Return what a process saw of a local session that it started with a stale RAY_ADDRESS."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    # A path of pytest's own is too long for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        done = subprocess.run(
            [sys.executable, "-c", LOCAL_RUN, folder],
            env=environment | {"TMPDIR": folder, "RAY_ADDRESS": "203.0.113.1:6379"},
            cwd=Path(__file__).parents[3],
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.ray
def test_a_local_session_listens_on_loopback_only(report) -> None:
    assert report["worker_seen"]
    assert report["nodes"] == ["127.0.0.1"]
    # /proc writes addresses as little-endian hexadecimal numbers: 127.0.0.1, and ::1.
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert report["listening"]
    assert set(report["listening"]) <= loopback


@pytest.mark.ray
def test_a_local_session_restores_the_environment(report) -> None:
    # Ray sets these two when it is imported, and reads them never again.
    assert set(report["changed"]) <= {"PYTHONBREAKPOINT", "RAY_CLIENT_MODE"}


@pytest.mark.ray
def test_a_local_session_keeps_its_files_private(report) -> None:
    assert report["token_modes"] == ["0o600"]
    assert report["modes"] == ["0o700"]


@pytest.mark.ray
def test_a_local_session_leaves_no_process_and_no_file(report) -> None:
    assert len(report["folders"]) == 1
    assert report["folders_after"] == []
    assert report["left_over"] == []


@pytest.mark.ray
def test_local_workers_are_not_niced(report) -> None:
    assert report["niceness"] == 0


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide whatever cluster this machine or this test session may have."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


def refused_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def fail_to_join(address: str, message: str, within_s: float = 4.0) -> None:
    before, started = dict(os.environ), time.monotonic()
    with pytest.raises(DispatchError, match=message), joined_session(address):
        pytest.fail("joined a cluster that does not exist")
    assert time.monotonic() - started < within_s
    assert dict(os.environ) == before


def test_auto_without_a_cluster_fails_at_once_and_says_what_to_do(no_cluster) -> None:
    fail_to_join("auto", "no Ray cluster runs on this machine: .*ray start --head.*--address", 2)


def test_auto_with_the_record_of_a_dead_cluster_fails_at_once(no_cluster, tmp_path) -> None:
    (tmp_path / "ray").mkdir()
    address = f"127.0.0.1:{refused_port()}"
    (tmp_path / "ray/ray_current_cluster").write_text(address, encoding="utf-8")
    fail_to_join("auto", f"no Ray cluster answers at {address}: Connection refused")


def test_auto_takes_the_address_of_the_environment(no_cluster, monkeypatch) -> None:
    address = f"127.0.0.1:{refused_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    fail_to_join("auto", f"no Ray cluster answers at {address}: Connection refused")


def test_an_address_where_nobody_listens_fails_at_once(no_cluster) -> None:
    address = f"127.0.0.1:{refused_port()}"
    fail_to_join(address, f"no Ray cluster answers at {address}: Connection refused")


def test_an_unknown_host_fails_and_is_named(no_cluster) -> None:
    fail_to_join("nowhere.invalid:6379", "no Ray cluster answers at nowhere.invalid:6379", 30)


@pytest.mark.parametrize(
    "address",
    ["", "head", "head:", ":6379", "head:port", "head:0", "head:65536", "head:6379:1", "1:2:3:4"],
)
def test_a_malformed_address_is_named(no_cluster, address) -> None:
    message = f"must be local, auto, HOST:PORT or ray://HOST:PORT, not {address!r}"
    with pytest.raises(DispatchError, match=message), joined_session(address):
        pytest.fail("joined a cluster without an address")


@pytest.mark.ray
def test_a_process_with_the_token_joins_a_running_cluster(ray_cluster, tmp_path) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    code = (
        "import sys, os\n"
        "from engine.dispatch.ray_session import joined_session\n"
        "with joined_session(sys.argv[1]):\n"
        "    import ray\n"
        "    print(ray.get(ray.remote(lambda: 2**10).remote()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, address],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["1024"], done.stderr


def test_folders_of_killed_sessions_are_removed_and_others_kept(tmp_path) -> None:
    for name in ("cv-dead", "cv-alive", "cv-young", "other"):
        (tmp_path / name / "r").mkdir(parents=True)
    for name in ("cv-dead", "cv-alive", "other"):
        (tmp_path / name / "lock").touch()
    with (tmp_path / "cv-alive/lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ray_session._sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cv-alive", "cv-young", "other"]


def test_old_folders_without_a_lock_are_removed_and_those_of_others_kept(tmp_path) -> None:
    names = ["cv-before-lock", "cv-empty", "cv-file-of-a-user", "cv-new", "cv-of-a-user", "cv-ray"]
    for name in names:
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "cv-of-a-user").chmod(0o755)
    (tmp_path / "cv-before-lock/lock.new").touch()
    (tmp_path / "cv-before-lock/token").touch()
    (tmp_path / "cv-file-of-a-user/thesis.tex").touch()
    (tmp_path / "cv-ray/r").mkdir()
    for name in names:
        if name != "cv-new":
            old = time.time() - ray_session.OLD_S - 60
            os.utime(tmp_path / name, (old, old))
    ray_session._sweep(tmp_path)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["cv-file-of-a-user", "cv-new", "cv-of-a-user", "cv-ray"]


@pytest.mark.parametrize("failing", ["flock", "write"])
def test_a_folder_that_cannot_be_written_is_told_and_left_nowhere(
    tmp_path, monkeypatch, failing
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_session, "LONGEST_FOLDER", 1000)
    if failing == "flock":
        monkeypatch.setattr(fcntl, "flock", refuse)
    else:
        monkeypatch.setattr(Path, "write_text", refuse)
    with (
        pytest.raises(DispatchError, match=r"temporary files, .* none can be made: File too large"),
        ray_session.local_session(1),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
