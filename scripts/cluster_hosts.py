"""Make hosts of a cluster out of Linux namespaces, with a Ray node on each, and work on them.

    sudo .venv/bin/python scripts/cluster_hosts.py cultivar evolve smoke --address auto

makes a head without CPUs and two workers with one each, joins them to a Ray cluster that asks for a
token, carries out the command on the head and takes everything down again. Without a command it
opens a shell there. What it is doing is told on stderr.

Every host has an address, a name, processes, shared memory and a disk of its own; the disk is
mounted at the same place everywhere and is where home and temporary files go. The rest of the file
system is that of this machine, as if the same things were installed everywhere.

The bridge between the hosts leads nowhere else. None of the namespaces has a name, so any number of
clusters may run at once, and they vanish with the last of their processes. Those are killed by the
kernel when this program ends, however it ends; after SIGKILL, a folder in /tmp is left.

Needs root and the programs ip (iproute2), nsenter, setpriv and unshare (util-linux). Where these
are missing or may not do what they are for, it says so and exits with 77; where Ray does not start,
with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NOT_PERMITTED = 77  # what "skipped" is to automake and meson
HEAD = "head"
PORT = 6379
PROGRAMS = ("ip", "nsenter", "setpriv", "unshare")
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
OBJECT_STORE_BYTES = 100 * 2**20
# Seconds that Ray gives a node to start, and that we give Ray. By itself it gives 30, which are too
# few for several nodes on a busy machine.
NODE_START_S = 120
RAY_START_S = 300
LONGEST_REASON = 1000  # characters
# The first process of a host. It tells its id as the rest of the machine knows it, which is what
# /proc still says, and collects the orphans that daemons leave by ignoring their ends.
BOOT = """
set -e
read -r pid rest < /proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o size=256m tmpfs /dev/shm
mount --bind "$FOLDER/names" /etc/hosts
mount --bind "$FOLDER/no-names" /etc/resolv.conf  # or every look-up waits for a timeout
mount --bind "$FOLDER/hosts/$NAME" "$FOLDER/disk"
mount -t tmpfs tmpfs "$FOLDER/hosts"  # nobody sees the disks of others
hostname "$NAME"
echo "$pid"
exec env --ignore-signal=CHLD sleep infinity >&-
"""


class NotPermittedError(Exception):
    """This machine does not let us make hosts."""


class RayStartError(Exception):
    """Ray did not start on a host."""


class Hosts:
    """Hosts on a common network, from entering the block until leaving it.

    Args:
        environment: Variables that every command finds besides the usual ones.

    Attributes:
        disk: Where a host finds its own disk.
        environment: Those variables, for the commands to come.

    Raises:
        NotPermittedError: This machine does not let us make hosts.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.environment = dict(environment or {})
        self._running: dict[str, tuple[subprocess.Popen[str], int]] = {}
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Self:
        if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
            raise NotPermittedError(f"hosts are made by {', '.join(missing)}, not found here")
        if os.geteuid() != 0:
            raise NotPermittedError("hosts can only be made by root")
        # Short, for Ray keeps sockets in there, and the path of a socket holds 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="ch-", dir="/tmp"))
        self.disk = self._folder / "disk"
        try:
            (self._folder / "hosts").mkdir()
            self.disk.mkdir()
            (self._folder / "names").write_text("127.0.0.1 localhost\n", encoding="utf-8")
            (self._folder / "no-names").touch()
            self._token = secrets.token_hex(32)
            # The cables end here.
            self._switch = self._boot("switch")
            self._ip(self._switch, "link set lo up", "link add br0 type bridge", "link set br0 up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in list(self._running):
            self._kill(name)
        shutil.rmtree(self._folder, ignore_errors=True)

    def boot(self, name: str) -> None:
        """Add a host, or switch it on again; its disk keeps what is on it."""
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        names = self._folder / "names"
        if name not in names.read_text(encoding="utf-8").split():
            with names.open("a", encoding="utf-8") as file:  # seen by all: it is the same file
                file.write(f"{self.address(name)} {name}\n")
        pid, mac = self._boot(name), f"02:00:00:00:00:{number:02x}"
        token = self.outside(name) / ".ray" / "auth_token"
        token.parent.mkdir(exist_ok=True)
        token.touch(mode=0o600)
        token.write_text(self._token, encoding="ascii")
        self._ip(
            self._switch,
            # A host that is switched on again has the card that the others remember.
            f"link add port{number} type veth peer name eth0 address {mac} netns {pid}",
            f"link set port{number} master br0 up",
        )
        self._ip(
            pid,
            "link set lo up",
            f"addr add {self.address(name)}/24 dev eth0",
            "link set eth0 up",
            # Ray takes the address from which the Internet would be reached. It is not.
            "route add default dev eth0",
        )

    def address(self, name: str) -> str:
        """Return the address of a host in the network of the hosts."""
        return f"10.77.0.{self._numbers[name]}"

    def outside(self, name: str) -> Path:
        """Return where the disk of a host lies on this machine."""
        return self._folder / "hosts" / name

    def start(
        self, name: str, command: Sequence[str | Path], **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command on a host, in the working directory of this process.

        Args:
            name: The host.
            command: The program and its arguments.
            **options: For ``subprocess.Popen``, without ``env``.
        """
        _, pid = self._running[name]
        enter = ["nsenter", f"--target={pid}", *NAMESPACES, f"--wdns={Path.cwd()}", "env", "-i"]
        enter += [f"{variable}={value}" for variable, value in self._environment().items()]
        return subprocess.Popen([*enter, *map(str, command)], text=True, **options)

    def run(self, name: str, command: Sequence[str | Path], timeout_s: float = 120) -> str:
        """Carry out a command on a host, and return what it printed.

        Raises:
            RuntimeError: It failed.
        """
        code, said = self._run(name, command, timeout_s)
        if code != 0:
            raise RuntimeError(f"{' '.join(map(str, command))} on {name}: {said}")
        return said

    def start_ray(self, name: str, n_cpus: int, options: Sequence[str] = ()) -> None:
        """Start a Ray node on a host; the host that is called ``head`` has to be the first.

        Raises:
            RayStartError: It did not start; with what Ray said last.
        """
        address = f"{self.address(HEAD)}:{PORT}"
        role = ["--head", f"--port={PORT}"] if name == HEAD else [f"--address={address}"]
        own = ["--node-ip-address", self.address(name), "--num-cpus", str(n_cpus)]
        memory = f"--object-store-memory={OBJECT_STORE_BYTES}"
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start"]
        try:
            code, said = self._run(
                name, [*ray, *role, *own, memory, "--disable-usage-stats", *options], RAY_START_S
            )
        except subprocess.TimeoutExpired as error:
            raise RayStartError(f"Ray did not start on {name} within {RAY_START_S} s") from error
        if code != 0:
            raise RayStartError(f"Ray did not start on {name}: {_reason(said)}")

    def is_on(self, name: str) -> bool:
        """Return whether a host was booted and not switched off since."""
        return name in self._running

    def unplug(self, name: str) -> None:
        """Pull the network cable of a host; nobody is told."""
        self._ip(self._switch, f"link set port{self._numbers[name]} down")

    def plug(self, name: str) -> None:
        """Put the network cable back."""
        self._ip(self._switch, f"link set port{self._numbers[name]} up")

    def power_off(self, name: str) -> None:
        """Cut the power of a host: its processes end, and no farewell leaves through the cable."""
        self.unplug(name)
        self._kill(name)
        with contextlib.suppress(NotPermittedError):  # it vanishes with the host, sooner or later
            self._ip(self._switch, f"link del port{self._numbers[name]}")

    def _run(self, name: str, command: Sequence[str | Path], timeout_s: float) -> tuple[int, str]:
        """Carry out a command on a host; return its exit code and what it printed."""
        process = self.start(
            name,
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = process.communicate(timeout=timeout_s)
        return process.returncode, said

    def _boot(self, name: str) -> int:
        """Start the first process of a host, and return its id."""
        (self._folder / "hosts" / name).mkdir(exist_ok=True)
        # Killed when this process ends, and its child when it ends itself.
        dies_with_us = ["setpriv", "--pdeathsig", "KILL"]
        isolated = ["unshare", *NAMESPACES, "--fork", "--kill-child"]
        process = subprocess.Popen(
            [*dies_with_us, *isolated, "sh", "-c", BOOT],
            env={"PATH": os.environ["PATH"], "FOLDER": str(self._folder), "NAME": name},
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us: we take the hosts down in order
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        if not pid:
            raise NotPermittedError(f"no host can be made here: {process.communicate()[1].strip()}")
        self._running[name] = (process, int(pid))
        return int(pid)

    def _kill(self, name: str) -> None:
        """End all processes of a host: the kernel does so when the first one ends."""
        process, pid = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        process.communicate()

    def _ip(self, pid: int, *commands: str) -> None:
        """Set up the network that a process is in."""
        done = subprocess.run(
            ["nsenter", f"--target={pid}", "--net", "ip", "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NotPermittedError(f"no network can be made here: {done.stderr.strip()}")

    def _environment(self) -> Mapping[str, str]:
        """Return what a command on a host finds in its environment, and nothing besides."""
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.disk),
            "TMPDIR": str(self.disk),
            "TERM": os.environ.get("TERM", "dumb"),
            "LANG": "C.UTF-8",
            "RAY_TMPDIR": str(self.disk),
            "RAY_AUTH_MODE": "token",  # which lies in ~/.ray/auth_token
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": str(NODE_START_S),
            **self.environment,
        }


def _reason(said: str) -> str:
    """Return why a command of Ray's failed: its last error, in one line, of all that it printed."""
    *_, error = re.split(r"^(?=[\w.]*(?:Error|Exception): )", said, flags=re.MULTILINE)
    return " ".join(error.split())[-LONGEST_REASON:] or "it printed nothing"


@contextlib.contextmanager
def cluster(n_workers: int = 2, head_options: Sequence[str] = ()) -> Iterator[Hosts]:
    """Yield a head without CPUs and workers, ``worker1`` and so on, of one CPU each.

    Raises:
        NotPermittedError: This machine does not let us make hosts.
        RayStartError: Ray did not start on one of them.
    """
    with Hosts() as hosts:
        hosts.boot(HEAD)
        hosts.start_ray(HEAD, 0, ["--include-dashboard=false", *head_options])
        for number in range(1, n_workers + 1):
            hosts.boot(f"worker{number}")
            hosts.start_ray(f"worker{number}", 1)
        yield hosts


def main() -> int:
    """Carry out the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=2, help="how many workers of one CPU")
    parser.add_argument("--system-config", type=json.loads, help="JSON, see docs/cluster.md")
    parser.add_argument("--dashboard", action="store_true", help="for ray job submit")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="on the head; default: a shell")
    arguments = parser.parse_args()
    options = [f"--include-dashboard={str(arguments.dashboard).lower()}"]
    if arguments.system_config:
        options.append(f"--system-config={json.dumps(arguments.system_config)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: everything is taken down
    command = arguments.command or ["sh"]

    def tell(text: str) -> None:
        print(f"{parser.prog}: {text}", file=sys.stderr, flush=True)

    try:
        n_hosts = 1 + arguments.workers
        tell(f"making {n_hosts} hosts with a Ray node on each, which takes some {5 * n_hosts} s")
        with cluster(arguments.workers, options) as hosts:
            tell(f"they are up, and the head carries out: {shlex.join(command)}")
            process = hosts.start(HEAD, command)
            while True:
                with contextlib.suppress(KeyboardInterrupt):  # the command has got it, too
                    return process.wait()
    except NotPermittedError as error:
        tell(str(error))
        return NOT_PERMITTED
    except RayStartError as error:
        tell(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
