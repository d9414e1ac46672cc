"""A run under ``--supervise``: it goes on by itself, and leaves nothing behind when it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import DispatchConfig
from engine.run_lock import holder_of

# The command as it is, but that it does not wait for long before it starts a run again, and that
# the disk takes its time.
IMPATIENT = """
import os, sys, time
from engine import supervision
supervision.FIRST_DELAY_S = supervision.LONGEST_DELAY_S = 0.2
supervision.RESTARTS = 3
fsync = os.fsync
os.fsync = lambda descriptor: (time.sleep(0.05), fsync(descriptor))
from engine.cli.main import main
"""
SCRIPT = f"{IMPATIENT}\nmain()"
# The command as it is, but that it keeps which plans it sends to workers.
COUNTING = """
import json, os
from engine.dispatch.speculation import Flight
from engine.cli.main import main

def counted(add):
    def send(self, reference, batch, *more):
        with open(os.environ["SENT"], "a") as file:
            file.writelines(json.dumps(plan.key) + "\\n" for plan in batch.plans)
        return add(self, reference, batch, *more)
    return send

Flight.add = counted(Flight.add)
main()
"""
AGAIN = re.compile(
    r"^[-\d]{10} [:\d]{8}: the process of the run (.*); it is started again in ([\d.]+) s$", re.M
)
JOURNAL = "journal.jsonl"
# Keeps which plans are carried out in this process.
WORKING = f"""{IMPATIENT}
import json
from engine.dispatch.serial import SerialExecutor

class Counting:
    def __init__(self, context):
        self._context = context

    def work(self, plans, genomes):
        with open(os.environ["SENT"], "a") as file:
            file.writelines(json.dumps(plan.key) + "\\n" for plan in plans)
        time.sleep(0.1)
        return self._context.work(plans, genomes)

run = SerialExecutor.run
SerialExecutor.run = lambda self, context, *others: run(self, Counting(context), *others)
main()
"""


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
    """Wait until a condition is true, and return what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def child_of(pid: int) -> int | None:
    """Return the id of the child process that a supervisor has now, if any."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def state_of(pid: int) -> str:
    """Return what a process is doing: R, S, D, T (stopped), Z; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def waiting_for(pid: int) -> list[int]:
    """Return the signals that a process was sent and has blocked."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(re.findall(r"^ShdPnd:\t(\w+)$", status, re.M)[0], 16)
    return [number for number in range(1, 65) if mask >> (number - 1) & 1]


def again_of(sent: Path) -> tuple[int, int]:
    """Return how often a plan was carried out once more, and how many plans there were."""
    keys = sent.read_text(encoding="utf-8").splitlines()
    return len(keys) - len(set(keys)), len(set(keys))


def test_a_supervised_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    start: Any, small: Path, assert_same_outcome: Any, tmp_path: Path, fault_row: Any
) -> None:
    run, sent = tmp_path / "run", tmp_path / "sent"
    command = start(
        *("evolve", small, "--run-dir", run, "--supervise"),
        script=WORKING,
        variables={"SENT": str(sent)},
    )
    stops = ['"type":"run"', '"phase":"students"', '"generation":1', '"generation":3']
    took = []
    for number, content in enumerate(stops):
        command.wait_for(run / JOURNAL, content.encode())
        time.sleep(number % 2 * 0.1)  # while the disk is busy, or else a batch
        killed, at = child_of(command.pid), time.monotonic()
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        eventually(lambda n=number: len(AGAIN.findall(command.errors())) == n + 1, "not restarted")
        took.append(time.monotonic() - at)
        eventually(lambda: child_of(command.pid), "not restarted")
    code, out, errors = command.end()
    assert code == 0, errors
    assert AGAIN.findall(errors) == [("was killed by signal 9 (Killed)", "0.2")] * len(stops)
    assert out.count("\nchampion ") == 1
    assert_same_outcome(run)
    assert command.left_over() == {}
    again, births = again_of(sent)
    assert again <= len(stops) * 4, "a kill may cost the batch in flight, four births"
    fault_row(
        fault=f"driver killed {len(stops)} times, under `--supervise`",
        how="`kill -9` of the process that carries the run out; serial, on a slow disk",
        noticed=f"{max(took):.2f} s at most; started again after 1 s (0.2 s in the test)",
        extra=f"{again} births and evaluations done again, besides {births}",
        outcome="same bytes, without anybody's help",
    )


def test_a_run_that_gets_no_further_is_given_up(start: Any, small: Path, tmp_path: Path) -> None:
    dying = f"""{IMPATIENT}
import signal, types
dies = types.SimpleNamespace(launch=lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
sys.modules["engine.launch"] = dies
main()
"""
    command = start("evolve", small, "--run-dir", tmp_path / "r", "--supervise", script=dying)
    code, out, errors = command.end()
    assert (code, out) == (2, "")
    *restarts, last = errors.splitlines()
    assert len(restarts) == 3
    assert last == (
        "SupervisionError: gave up: the process of the run was killed by signal 9 (Killed), and 3 "
        "restarts in a row have brought the run no further; mend that, then give the same command "
        "again"
    )


def test_what_a_user_has_to_mend_ends_a_supervised_run_at_once(start: Any, tmp_path: Path) -> None:
    asked = ("--workers", "0", "--address", "127.0.0.1:1", "--supervise")
    command = start("evolve", "smoke", "--run-dir", tmp_path / "run", *asked, script=SCRIPT)
    code, out, errors = command.end()
    assert (code, out) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("ConfigError: dispatch.workers is 0, which means no Ray")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_supervisor_and_run_in_order(
    start: Any, small: Path, assert_same_outcome: Any, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    command = start("evolve", small, "--run-dir", run, "--supervise", script=SCRIPT)
    command.wait_for(run / JOURNAL, b'"generation":1')
    command.signal(number, to_all=number == signal.SIGINT)  # as a terminal does
    code, out, errors = command.end()
    assert (code, out) == (130, ""), errors
    assert "stopping after what is in flight" in errors
    assert errors.endswith(f"\nstopped; go on with 'cultivar resume {run}'\n")
    assert AGAIN.findall(errors) == []
    assert command.left_over() == {}
    resumed = start("resume", run, "--supervise", script=SCRIPT)
    assert resumed.end()[0] == 0
    assert_same_outcome(run)


def test_a_run_that_heeds_no_signal_is_killed_by_the_third(
    start: Any, small: Path, tmp_path: Path
) -> None:
    deaf = f"""{IMPATIENT}
import signal, types
def launch(config, run_directory, progress):
    run_directory.with_name("begun").touch()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    time.sleep(600)
sys.modules["engine.launch"] = types.SimpleNamespace(launch=launch)
main()
"""
    command = start("evolve", small, "--run-dir", tmp_path / "run", "--supervise", script=deaf)
    eventually((tmp_path / "begun").exists, "not begun")
    child = child_of(command.pid)
    assert child is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        command.signal(number)
        eventually(lambda n=number: n in waiting_for(child), "not handed on")
    command.signal(signal.SIGINT)
    code, out, errors = command.end()
    assert (code, out) == (130, "")
    assert errors.endswith("stopped; give the same command again\n")
    assert command.left_over() == {}


def test_a_cluster_that_is_not_there_is_waited_for_until_a_signal_comes(
    start: Any, tmp_path: Path
) -> None:
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        asked = ("--run-dir", tmp_path / "run", "--address", address, "--supervise")
        command = start("evolve", "smoke", *asked, script=SCRIPT)
        eventually(lambda: len(AGAIN.findall(command.errors())) > 1, "not restarted")
        # Others are told that the run goes on, also while no process works on it.
        waits = ", which is about to start the run again"
        eventually(lambda: str(holder_of(tmp_path / "run")).endswith(waits), "not locked")
        command.signal(signal.SIGTERM)
        code, out, errors = command.end()
    assert (code, out) == (130, ""), errors
    assert f"ClusterUnavailableError: no Ray cluster answers at {address}: " in errors
    assert set(AGAIN.findall(errors)) == {("found no cluster to work on", "0.2")}
    assert "Traceback" not in errors
    assert command.left_over() == {}


def test_nothing_goes_on_where_the_supervisor_was_killed(
    start: Any, small: Path, assert_same_outcome: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = start("evolve", small, "--run-dir", run, "--supervise", script=SCRIPT)
    command.wait_for(run / JOURNAL, b'"generation":1')
    child = child_of(command.pid)
    assert child is not None
    command.signal(signal.SIGKILL)
    assert command.end()[0] == -signal.SIGKILL
    eventually(lambda: state_of(child) in ("", "Z"), "the run goes on by itself")
    assert start("resume", run).end()[0] == 0
    assert_same_outcome(run)


def test_a_supervisor_is_small_and_stops_together_with_the_run(
    start: Any, small: Path, assert_same_outcome: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = start("evolve", small, "--run-dir", run, "--supervise", script=SCRIPT)
    command.wait_for(run / JOURNAL, b'"type":"run"')
    child = child_of(command.pid)
    assert child is not None
    loaded = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in (command.pid, child)}
    assert "libtorch" in loaded[child]
    assert not re.search("libtorch|_raylet", loaded[command.pid])
    assert len(list(Path(f"/proc/{command.pid}/task").iterdir())) == 1
    assert command.end()[0] == 0
    assert_same_outcome(run)


# Does what a shell does for a command: another process group of the same session.
AS_A_SHELL = """
import subprocess, sys
sys.exit(subprocess.call([sys.executable, "-c", {script!r}, *sys.argv[1:]], process_group=0))
"""
DYING = f"""{IMPATIENT}
import signal, types
supervision.FIRST_DELAY_S = supervision.LONGEST_DELAY_S = 600
dies = types.SimpleNamespace(launch=lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
sys.modules["engine.launch"] = dies
main()
"""


def test_ctrl_z_stops_supervisor_and_run_until_a_shell_lets_them_go_on(
    start: Any, small: Path, assert_same_outcome: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shell = start(
        *("evolve", small, "--run-dir", run, "--supervise"),
        script=AS_A_SHELL.format(script=SCRIPT),
    )
    shell.wait_for(run / JOURNAL, b'"generation":1')
    supervisor = child_of(shell.pid)
    assert supervisor is not None
    child = child_of(supervisor)
    assert child is not None
    os.kill(supervisor, signal.SIGTSTP)
    for pid in (supervisor, child):
        eventually(lambda pid=pid: state_of(pid) == "T", "not stopped")
    os.kill(supervisor, signal.SIGCONT)
    assert shell.end()[0] == 0
    assert_same_outcome(run)


def test_ctrl_z_without_a_shell_stops_nothing_for_good(
    start: Any, small: Path, assert_same_outcome: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = start("evolve", small, "--run-dir", run, "--supervise", script=SCRIPT)
    command.wait_for(run / JOURNAL, b'"generation":1')
    command.signal(signal.SIGTSTP)  # it leads its session, as with ``ssh -t``
    assert command.end()[0] == 0
    assert_same_outcome(run)


def test_ctrl_z_is_heeded_between_two_restarts(start: Any, small: Path, tmp_path: Path) -> None:
    shell = start(
        *("evolve", small, "--run-dir", tmp_path / "run", "--supervise"),
        script=AS_A_SHELL.format(script=DYING),
    )
    eventually(lambda: AGAIN.findall(shell.errors()), "not restarted")
    supervisor = child_of(shell.pid)
    assert supervisor is not None
    os.kill(supervisor, signal.SIGTSTP)
    eventually(lambda: state_of(supervisor) == "T", "not stopped")
    os.kill(supervisor, signal.SIGCONT)
    os.kill(supervisor, signal.SIGTERM)
    assert shell.end()[0] == 130
    assert len(AGAIN.findall(shell.errors())) == 1


def test_a_supervisor_hears_of_its_child_though_it_was_started_deaf_to_that(
    start: Any, tmp_path: Path
) -> None:
    deaf = f"import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n{SCRIPT}"
    asked = ("--workers", "0", "--address", "127.0.0.1:1", "--supervise")
    command = start("evolve", "smoke", "--run-dir", tmp_path / "run", *asked, script=deaf)
    assert command.end()[0] == 2


def test_a_process_that_cannot_be_started_counts_as_one_that_ended_early(
    start: Any, small: Path, tmp_path: Path
) -> None:
    refusing = f"""{IMPATIENT}
import errno
def refuse():
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
os.fork = refuse
main()
"""
    command = start("evolve", small, "--run-dir", tmp_path / "r", "--supervise", script=refusing)
    code, _, errors = command.end()
    reason = "was not started: Resource temporarily unavailable"
    assert AGAIN.findall(errors) == [(reason, "0.2")] * 3
    assert code == 2
    assert errors.splitlines()[-1].startswith(
        f"SupervisionError: gave up: the process of the run {reason}, and 3 restarts in a row"
    )


@pytest.mark.parametrize("options", [(), ("--supervise",)])
def test_a_run_goes_on_though_nobody_reads_of_it(
    small: Path, assert_same_outcome: Any, tmp_path: Path, options: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "engine.cli.main", "evolve", str(small), *options]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as unread:
        done = subprocess.run(
            [*command, "--run-dir", str(tmp_path / "run")],
            cwd=Path(__file__).parents[2],
            stdout=unread,
            stderr=unread,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0
    assert_same_outcome(tmp_path / "run")


def test_a_terminal_is_left_in_order_where_the_run_is_killed(small: Path, tmp_path: Path) -> None:
    asked = ["evolve", str(small), "--run-dir", str(tmp_path / "run"), "--supervise"]
    terminal, end = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", DYING, *asked], cwd=Path(__file__).parents[2], stderr=end
    ) as process:
        os.close(end)
        shown = b""
        while b"it is started again" not in shown:
            shown += os.read(terminal, 2**16)
        process.terminate()
    os.close(terminal)
    assert process.returncode == 130
    # On a line of its own, with the cursor back.
    assert re.search(rb"\n\x1b\[\?25h[-\d]{10} [:\d]{8}: the process of the run was killed", shown)


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


class Head:
    """The head of a Ray cluster, with two CPUs, that asks for a token and listens on loopback."""

    def __init__(self, home: Path, port: int) -> None:
        self._home = home
        self.port = port
        token = home / "token"
        token.touch(mode=0o600)
        token.write_text("6" * 64, encoding="utf-8")
        self.variables = {
            "RAY_TMPDIR": str(home),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every socket on 127.0.0.1
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, a new cluster each time, and wait until it is there."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        log = self._home / f"log-{time.monotonic_ns()}"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *("--num-cpus=2", f"--object-store-memory={200 * 2**20}"),
                    *("--node-ip-address=127.0.0.1", f"--port={self.port}"),
                    *("--include-dashboard=false", f"--ray-client-server-port={free_port()}"),
                ],
                env=inherited | self.variables,
                cwd=self._home,
                start_new_session=True,
                stdout=file,
                stderr=file,
            )
        eventually(lambda: b"Ray runtime started" in log.read_bytes(), f"no head, see {log}", 120)

    def kill(self) -> None:
        """Kill all of its processes, as if the machine had lost its power."""
        if self._process is None:
            return
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(ProcessLookupError):
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self._process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
        self._process.wait()
        self._process = None


@pytest.fixture
def head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as home:
        one = Head(Path(home), free_port())
        try:
            one.start()
            yield one
        finally:
            one.kill()


@pytest.mark.slow
@pytest.mark.ray
def test_a_supervised_run_outlasts_the_head_of_its_cluster(
    start: Any,
    head: Head,
    small: Path,
    assert_same_outcome: Any,
    tmp_path: Path,
    fault_row: Any,
) -> None:
    run, journal, sent = tmp_path / "run", tmp_path / "run" / JOURNAL, tmp_path / "sent"
    config = tmp_path / "small.yaml"
    text = small.read_text(encoding="utf-8").replace("dispatch: {workers: 0}", "")
    config.write_text(f"name: small-3\n{text}", encoding="utf-8")
    command = start(
        *("evolve", config, "--run-dir", run, "--supervise"),
        *("--address", f"127.0.0.1:{head.port}", "--set", "dispatch.stall_timeout_s=5"),
        script=COUNTING,
        variables=head.variables | {"SENT": str(sent)},
    )
    command.wait_for(journal, b'"generation":1', 120)
    head.kill()
    killed_at = time.monotonic()
    eventually(lambda: AGAIN.findall(command.errors()), "not noticed", 300)
    noticed_s = time.monotonic() - killed_at
    eventually(lambda: len(AGAIN.findall(command.errors())) > 1, "not started again")
    recorded = journal.read_bytes()
    head.start()
    started_at = time.monotonic()
    eventually(lambda: journal.stat().st_size > len(recorded), "does not go on", 120)
    going_on_s = time.monotonic() - started_at
    code, _, errors = command.end(240)
    assert code == 0, errors
    assert_same_outcome(run)
    assert journal.read_bytes().startswith(recorded), "something was done again and recorded"
    first, *others = (ending for ending, _ in AGAIN.findall(errors))
    assert first == "ended with exit code 1"  # by Ray, in C++
    assert set(others) == {"found no cluster to work on"}
    hangs = re.findall(r"^\[.*\] no progress for .*, phase breeding: .* in ray\.", errors, re.M)
    assert len(hangs) > 1
    again, births = again_of(sent)
    # What was in flight, three batches of four on two CPUs; a batch may be sent to nowhere, too.
    assert again <= 3 * 4 * DispatchConfig().loss_attempts
    fault_row(
        fault="head of the cluster lost, under `--supervise`",
        how="`kill -9` of all its processes, no other node; then another cluster at its address",
        noticed=f"{noticed_s:.0f} s, by Ray, which ends the driver; a line says before where it "
        "hangs",
        extra=f"{again} births and evaluations sent again, besides {births}",
        outcome=f"same bytes; went on {going_on_s:.0f} s after there was a cluster",
    )
