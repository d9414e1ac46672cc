"""Start a private Ray on this machine, or join a cluster. Imported before Ray itself."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.dispatch.handshake import CLIENT, show_token
from engine.errors import ClusterUnavailableError, DispatchError

OBJECT_STORE_BYTES = 200 * 2**20
# Ray keeps sockets below its folder, and an AF_UNIX path holds 107 bytes.
LONGEST_FOLDER = 43
PREFIX = "cv-"
LOCK = "lock"
TOKEN = "token"
OLD_S = 3600.0
"""Age of a folder whose process has certainly come to its lock, or was killed before."""
LOOK_TIMEOUT_S = 3
"""For what is there at once if it is there at all."""


@contextlib.contextmanager
def local_session(n_workers: int | None) -> Iterator[None]:
    """Run a private Ray while the block runs: loopback only, with a token, in its own folder.

    Args:
        n_workers: Worker slots; None takes every core.

    Raises:
        DispatchError: Ray cannot start.
    """
    with _private_folder() as home, _environment(_private_settings(home)):
        import ray

        try:
            try:
                ray.init(
                    address="local",
                    num_cpus=n_workers,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(home / "r"),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                raise ClusterUnavailableError(
                    f"Ray did not start on this machine: {error}"
                ) from error
            yield
        finally:
            ray.shutdown()


def _private_settings(home: Path) -> dict[str, str]:
    """Return the environment of a Ray that lets nobody else in."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every socket on 127.0.0.1
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / TOKEN),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_worker_niceness": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_NUM_THREADS": "1",
    }


@contextlib.contextmanager
def joined_session(address: str, allow_insecure: bool = False) -> Iterator[None]:
    """Be connected to a running cluster while the block runs.

    Args:
        address: ``auto`` for a cluster that this machine belongs to, ``host:port``, or, from any
            machine, ``ray://host:port`` of a client server.
        allow_insecure: Whether a cluster may be joined that asks nobody for a token.

    Raises:
        DispatchError: There is no cluster, or it does not let us in, or it lets everyone in.
    """
    if address == "auto":
        address = _address_of_this_machine()
    # A cluster that asks for no token must not be sent ours either.
    mode = "token" if show_token(address, allow_insecure) else "disabled"
    settings = {
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": mode,
        "RAY_ENABLE_AUTO_CONNECT": "0",  # a connection that is lost must not become another one
    }
    if _hides_behind_loopback(address):
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    with _environment(settings):
        import ray

        try:
            if not address.startswith(CLIENT):
                _find_node(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _why_not(address, error) from error
        try:
            yield
        finally:
            ray.shutdown()


def _hides_behind_loopback(address: str) -> bool:
    """Return whether a head listens on a loopback address alone.

    Ray takes such an address for another name of this machine, and looks for the head at the
    address that others would use, for two minutes, unless it is told that there are no others.
    """
    host, _, port = address.rpartition(":")
    if host not in ("localhost", "127.0.0.1", "[::1]"):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 1))  # sends nothing; an address that belongs to nobody
            socket.create_connection((route.getsockname()[0], int(port)), LOOK_TIMEOUT_S).close()
        except OSError:
            return True
    return False


def _find_node(address: str) -> None:
    """Look for a node of a cluster on this machine, without which Ray cannot join it.

    Raises:
        ClusterUnavailableError: There is none; Ray itself would look for a minute.
    """
    from ray._private.services import get_node_to_connect_for_driver
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # it is compiled

    try:
        get_node_to_connect_for_driver(GcsClient(address=address), timeout_seconds=LOOK_TIMEOUT_S)
    except RuntimeError as error:
        head = address.rpartition(":")[0]
        raise ClusterUnavailableError(
            f"no node of the Ray cluster at {address} runs on this machine: start one here that "
            f"takes no work, 'ray start --address={address} --num-cpus=0', or go through the "
            f"server for clients, --address ray://{head}:10001"
        ) from error


def _why_not(address: str, error: Exception) -> DispatchError:
    """Return why a cluster that takes our token, or needs none, is not joined."""
    text = " ".join(str(error).split())
    if "Version mismatch" in text:
        return DispatchError(
            f"the Ray cluster at {address} needs the same Python and Ray as here: {text}"
        )
    if address.startswith(CLIENT):
        return ClusterUnavailableError(f"the client server at {address} did not let us in: {text}")
    return ClusterUnavailableError(f"the Ray cluster at {address} did not let us in: {text}")


def _address_of_this_machine() -> str:
    """Return the address of the cluster that runs here, from RAY_ADDRESS or Ray's own record."""
    address = os.environ.get("RAY_ADDRESS", "")
    record = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray/ray_current_cluster"
    if not address and record.is_file():
        address = record.read_text(encoding="utf-8").strip()
    if not address:
        raise ClusterUnavailableError(
            "no Ray cluster runs on this machine: start one with "
            "'ray start --head', name one with --address HOST:PORT, "
            "or leave --address out for a private local one"
        )
    return address


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """Yield a new folder that nobody else can enter, with its lock held and a token in it.

    It is removed when the block ends.

    Raises:
        DispatchError: It cannot be made.
    """
    with contextlib.ExitStack() as cleanup:
        try:
            home = _new_folder()
            cleanup.callback(shutil.rmtree, home, ignore_errors=True)
            cleanup.enter_context(_held(home))
            _sweep(home.parent)
            token = home / TOKEN
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))
        except OSError as error:
            raise DispatchError(
                "Ray needs a folder for temporary files, such as that of TMPDIR or /tmp, but there "
                f"none can be made: {error.strerror}; mend that, or leave Ray out (--workers 0)"
            ) from error
        yield home


@contextlib.contextmanager
def _held(home: Path) -> Iterator[None]:
    """Hold the lock of a session's folder while the block runs.

    The file gets its name once it is locked, so that nobody ever sees it unlocked.
    """
    with (home / f"{LOCK}.new").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Path(file.name).rename(home / LOCK)
        yield


def _sweep(parent: Path) -> None:
    """Remove the folders of sessions whose process was killed.

    Nobody holds their lock, or they are old and have none yet.

    Args:
        parent: Where the folders lie; those of other users are left alone.
    """
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        try:
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:
            continue  # it is in use, not ours, or gone already
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # likewise
            if _was_left_without_lock(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _was_left_without_lock(folder: Path) -> bool:
    """Tell whether a process of ours made a folder and was killed before it held a lock there."""
    made = folder.lstat()
    return (
        made.st_mode == stat.S_IFDIR | 0o700  # as mkdtemp makes it
        and made.st_uid == os.geteuid()
        and time.time() - made.st_mtime > OLD_S
        and {file.name for file in folder.iterdir()} <= {f"{LOCK}.new", TOKEN}
    )


def _new_folder() -> Path:
    """Return a new folder that nobody else can enter, with a path short enough for Ray."""
    home = Path(tempfile.mkdtemp(prefix=PREFIX))
    if len(str(home)) > LONGEST_FOLDER - len("/r"):
        home.rmdir()
        home = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    return home


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs; a stale RAY_ADDRESS must not redirect us."""
    before = {name: os.environ.get(name) for name in (*settings, "RAY_ADDRESS")}
    os.environ.update(settings)
    os.environ.pop("RAY_ADDRESS", None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
