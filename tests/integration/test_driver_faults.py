"""What becomes of a run whose driver is killed, or whose disk is full, read-only or shared.

Each run ends with what the undisturbed one has: leaderboard, recipes, genomes and champion, byte
for byte.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import pytest

from engine.config_file import load_config
from engine.launch import launch
from engine.progress import SilentProgress
from populations.journal import Journal, read_journal
from populations.leaderboard import LeaderboardWriter

ROOT = Path(__file__).parents[2]
TINY = """
seed: 5
teachers:
  hidden: [16, 16]
  training: {steps: [8000, 4000], checkpoints: 2, checkpoint_episodes: 4}
states: {size: 128, episodes: 4}
network: {hidden: [8, 8]}
distillation: {students: 4, steps: 30}
finetune: {steps: 5}
evolution: {generations: 5, population: 4, children: 6, elites: 2, batch_size: 2, controls: 1}
evaluation: {episodes: 4, holdout_episodes: 8, champion_candidates: 2}
dispatch: {workers: 0}
"""
VOLATILE = ("node", "attempts", "wall_s", "cpu_s", "created_at")
KILLS = 20

# The command, in children of a process that has imported everything already: each of them is the
# driver of the run, and is killed at a moment that a seed decides: so long after it began, or after
# its next line in the journal. Disk and work take their time, so that both are hit.
KILLING = """
import json, os, random, signal, sys, time
from pathlib import Path
import engine.breeding, engine.launch
from engine.cli.main import main

config, run, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
journal, begun = run / "journal.jsonl", run.with_name("begun")
fsync, work = os.fsync, engine.breeding.Context.work

def slow_fsync(descriptor):
    time.sleep(0.03)
    fsync(descriptor)

def counted(self, plans, genomes):
    with begun.open("a") as file:
        file.writelines(json.dumps(plan.key) + "\\n" for plan in plans)
    time.sleep(0.05)
    return work(self, plans, genomes)

os.fsync, engine.breeding.Context.work = slow_fsync, counted

def driver():
    pid = os.fork()
    if pid == 0:
        main(["evolve", config, "--run-dir", str(run), "--quiet"])
    return pid

def lines():
    return journal.read_bytes().count(b"\\n") if journal.exists() else 0

rng, moments = random.Random(20), []
for _ in range(kills):
    before = lines()
    pid = driver()
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, 0.3))
    else:
        deadline = time.monotonic() + 60
        while lines() == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.12))
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, "it ended too early"
    moments.append(lines())
assert os.waitstatus_to_exitcode(os.waitpid(driver(), 0)[1]) == 0
print(json.dumps(moments))
"""

# A disk of its own that is full at first, and gets some more room whenever the run has stopped.
# Everything happens in a mount namespace, so that nobody else sees the disk.
FILLING = """
import json, os, shutil, subprocess, sys
from pathlib import Path
import engine.launch
from engine.cli.main import main

config, disk, errors, copy = sys.argv[1], *map(Path, sys.argv[2:])
run = disk / "run"

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", disk], check=True)

def command(*arguments):
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        try:
            main(list(map(str, arguments)))
        except SystemExit as end:
            os._exit(end.code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, errors.read_text()

told = []
def note(what, code, text):
    told.append({"what": what, "code": code, "text": text})

size = 8
mount(f"size={size}k")
mount("remount,ro")
note("ro", *command("evolve", config, "--run-dir", run, "--quiet"))
mount("remount,rw")
while True:
    code, text = command("evolve", config, "--run-dir", run, "--quiet")
    if code == 0:
        break
    note("full", code, text)
    if len(told) == 5:
        mount("remount,ro")
        note("ro", *command("resume", run, "--quiet"))
        mount("remount,rw")
    size += 8 if size < 32 else size // 4
    assert size < 10_000, text
    mount("remount", f"size={size}k")
shutil.copytree(run, copy)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration of a run of less than a second."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of that run, carried out without a break."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    launch(load_config(tiny), directory, SilentProgress())
    return directory


@pytest.fixture
def assert_undisturbed(undisturbed: Path, outcome_of: Any) -> Callable[[Path], None]:
    """Return a function that compares a run with the undisturbed one."""

    def compare(run: Path) -> None:
        found, expected = outcome_of(run), outcome_of(undisturbed)
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == []
        assert history(run) == history(undisturbed)
        assert temporary_files(run) == []

    return compare


def history(run: Path) -> Counter[str]:
    """Return how often each event is in the journal, without what may differ between two runs."""
    events = list(read_journal(run / "journal.jsonl"))
    for event in events:
        for part in (event, *event.get("rows", [])):
            for name in (*VOLATILE, "run", "config"):
                part.pop(name, None)
    return Counter(json.dumps(event, sort_keys=True) for event in events)


def temporary_files(run: Path) -> list[str]:
    return [path.name for path in run.rglob(".*") if path.is_file()]


def births(run: Path) -> list[tuple[str, int, int]]:
    """Return the key of every result in the journal, in their order."""
    events = read_journal(run / "journal.jsonl")
    return [(e["phase"], e["generation"], e["index"]) for e in events if e.get("type") == "result"]


def test_the_tiny_run_is_worth_comparing(undisturbed: Path) -> None:
    assert len(births(undisturbed)) == 1 + 4 + 5 * 10 + 2
    assert len(list((undisturbed / "genomes").iterdir())) == 6
    assert all(number == 1 for number in history(undisturbed).values())


@pytest.mark.slow
def test_a_driver_that_is_killed_twenty_times_loses_and_doubles_no_child(
    tiny: Path, assert_undisturbed: Any, tmp_path: Path, fault_row: Any
) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", KILLING, str(tiny), str(run), str(KILLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    moments = json.loads(done.stdout.splitlines()[-1])
    assert len(moments) == KILLS
    assert len(set(moments)) > KILLS // 3, "most kills came at the same line"
    assert_undisturbed(run)
    assert max(Counter(births(run)).values()) == 1
    begun = Counter(map(tuple, map(json.loads, (tmp_path / "begun").read_text().splitlines())))
    assert set(births(run)) == set(begun)
    again = begun.total() - len(begun)
    assert again <= 2 * KILLS, "a kill may cost the batch in flight, two births"
    fault_row(
        fault=f"driver killed {KILLS} times in one run",
        how="`kill -9` at moments drawn with a seed; serial, on a slow disk",
        noticed="the kernel gives the lock back; `resume` checks and replays the journal",
        extra=f"{again} births and evaluations done again, besides {len(begun)}",
        outcome="same bytes; no child lost or doubled",
    )


class FullDisk:
    """A disk that refuses to write one file, of which it keeps a part.

    Args:
        monkeypatch: Puts it in the place of the real one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = ""
        self.content = b""
        self.refused: list[str] = []
        self._fsync, self._open = os.fsync, LeaderboardWriter._open
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(LeaderboardWriter, "_open", lambda writer: self.open(writer))

    def refuse(self, file: str, content: bytes = b"") -> None:
        """Refuse a file from now on, where it holds ``content``."""
        self.file, self.content, self.refused = file, content, []

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        final = path.name.strip(".").partition(f".{os.getpid()}.")[0]
        if path.is_file() and final == self.file and self.content in path.read_bytes():
            size = path.stat().st_size
            os.truncate(path, size - 7 if final == "journal.jsonl" else size // 2)
            self.fail(final)
        self._fsync(descriptor)

    def open(self, writer: LeaderboardWriter) -> Any:
        file = self._open(writer)
        return Appending(self, file) if self.file == "rows" else file

    def fail(self, name: str) -> None:
        self.refused.append(name)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Appending:
    """A leaderboard of which the disk keeps half of what is appended."""

    def __init__(self, disk: FullDisk, file: IO[str]) -> None:
        self._disk, self._file, self._text = disk, file, ""

    def write(self, text: str) -> None:
        self._text += text

    def fileno(self) -> int:
        return self._file.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flush(self) -> None:
        if self._text and self._disk.refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._disk.content not in self._text.encode():
            self._file.write(self._text)
            self._file.flush()
            self._text = ""
            return
        self._file.write(self._text[: len(self._text) // 2])
        self._file.flush()
        self._disk.fail("leaderboard.csv")

    def close(self) -> None:
        self._file.close()
        if self._text and self._disk.refused:  # what a buffer still holds is tried once more
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FILES = [
    ("config.yaml", b"", "config.yaml"),
    ("journal.jsonl", b"cultivar-journal", "journal.jsonl"),
    ("journal.jsonl", b'"type":"run"', "journal.jsonl"),
    ("teacher-0.safetensors", b"", "teachers/teacher-0.safetensors"),
    ("teacher-1.safetensors", b"", "teachers/teacher-1.safetensors"),
    ("states.npz", b"", "states.npz"),
    ("leaderboard.csv", b"", "leaderboard.csv"),
    ("journal.jsonl", b'"phase":"students"', "journal.jsonl"),
    ("gen-0000.safetensors", b"", "genomes/gen-0000.safetensors"),
    ("recipes.csv", b"", "recipes.csv"),
    ("rows", b",student,", "leaderboard.csv"),
    ("journal.jsonl", b'"generation":2', "journal.jsonl"),
    ("gen-0003.safetensors", b"", "genomes/gen-0003.safetensors"),
    ("rows", b",child,", "leaderboard.csv"),
    ("champion.safetensors", b"", "champion.safetensors"),
    ("champion.json", b"", "champion.json"),
    ("journal.jsonl", b'"stage":"champion"', "journal.jsonl"),
    ("rows", b",child,5,,", "leaderboard.csv"),
]
"""Files in the order in which they are written, what of them is refused, and their names."""


def test_a_full_disk_stops_the_run_at_each_file_and_the_run_goes_on(
    cultivar: Any,
    tiny: Path,
    assert_undisturbed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault_row: Any,
) -> None:
    run = tmp_path / "run"
    disk = FullDisk(monkeypatch)
    for file, content, name in FILES:
        disk.refuse(file, content)
        code, out, errors = cultivar("evolve", tiny, "--run-dir", run, "--quiet")
        assert disk.refused, f"{file} with {content!r} was not written"
        check_stop(run, code, out, errors, f"{name}: {os.strerror(errno.ENOSPC)} (")
        assert (run / name).exists() == (name == "journal.jsonl" or file == "rows")
    disk.refuse("")
    code, out, errors = cultivar("resume", run)
    assert code == 0, errors
    assert "dropped" not in errors
    assert_undisturbed(run)
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    kinds = {re.sub(r"\d", "", name) for *_, name in FILES}
    assert kinds == {re.sub(r"\d", "", name) for name in files - {"run.lock"}}
    fault_row(
        fault="disk full (ENOSPC) at each kind of file",
        how=f"the disk keeps a part of what is written and refuses; {len(FILES)} stops in one run",
        noticed="the write itself; one sentence, exit code 2",
        extra="the batch or stage whose result could not be written",
        outcome="same bytes after room was made",
    )


def check_stop(run: Path, code: int, out: str, errors: str, name: str) -> None:
    """Check that a run stopped in order and says in one sentence how to go on."""
    assert code == 2, errors
    assert out == ""
    (line,) = errors.splitlines()
    assert line.startswith("RunDirectoryError: cannot "), line
    assert name in line
    if (run / "journal.jsonl").exists():
        assert line.endswith(f", then go on with 'cultivar resume {run}'")
    else:
        assert line.endswith("then give the same command again")
    assert temporary_files(run) == []


@contextlib.contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Let the kernel refuse what would make a file of this process larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow_stops_the_run_and_the_run_goes_on(
    cultivar: Any, tiny: Path, assert_undisturbed: Any, tmp_path: Path, fault_row: Any
) -> None:
    run = tmp_path / "run"
    stopped_at = []
    for n_bytes in (30, 1_000, 2_500, 4_000, 10_000, 20_001, 30_003, 45_006):
        with largest_file(n_bytes):
            code, out, errors = cultivar("evolve", tiny, "--run-dir", run, "--quiet")
        check_stop(run, code, out, errors, os.strerror(errno.EFBIG))
        stopped_at.append(errors.partition(f"{run}/")[2].partition(":")[0])
        assert "ulimit -f" in errors
    assert {"config.yaml", "journal.jsonl"} < set(stopped_at)
    assert len(set(stopped_at)) >= 3, stopped_at
    code, _, errors = cultivar("resume", run)
    assert code == 0, errors
    assert_undisturbed(run)
    fault_row(
        fault="file-size limit (EFBIG)",
        how=f"`RLIMIT_FSIZE`, {len(stopped_at)} sizes in one run: {', '.join(unique(stopped_at))}",
        noticed="the write itself; one sentence, exit code 2",
        extra="the batch or stage whose result could not be written",
        outcome="same bytes after the limit was lifted",
    )


def unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def test_a_disk_that_fills_up_or_is_read_only_stops_the_run_and_the_run_goes_on(
    tiny: Path, assert_undisturbed: Any, tmp_path: Path, fault_row: Any
) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    probe = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip(f"a disk of its own needs the right to mount: {probe.stderr.strip()}")
    program = [sys.executable, "-c", FILLING, tiny, disk, tmp_path / "errors", copy]
    done = subprocess.run(
        ["unshare", "-m", *map(str, program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    full = [stop["text"] for stop in told if stop["what"] == "full"]
    read_only = [stop["text"] for stop in told if stop["what"] == "ro"]
    assert {stop["code"] for stop in told} == {2}
    assert all(stop["text"].count("\n") == 1 for stop in told)
    assert len(full) >= 5
    assert all(f"{disk}/run/" in text and "No space left on device (" in text for text in full)
    assert all("make room, then g" in text for text in full)
    assert len(read_only) == 2
    assert f"cannot create the run directory {disk}/run: Read-only file system" in read_only[0]
    assert f"cannot lock {disk}/run: Read-only file system" in read_only[1]
    assert read_only[1].endswith(
        f"make it writable, then go on with 'cultivar resume {disk}/run'\n"
    )
    assert_undisturbed(copy)
    files = unique([text.partition(f"{disk}/run/")[2].partition(":")[0] for text in full])
    fault_row(
        fault="a disk that fills up (ENOSPC)",
        how=f"a tmpfs of 8 kB that grows after each of {len(full)} stops: {', '.join(files)}",
        noticed="the write itself; one sentence with what is free, exit code 2",
        extra="the batch or stage whose result could not be written",
        outcome="same bytes after room was made",
    )
    fault_row(
        fault="a disk that becomes read-only (EROFS)",
        how="the same tmpfs mounted read-only before the run and between two of its parts",
        noticed="the folder or the lock cannot be made; one sentence, exit code 2",
        extra="none",
        outcome="same bytes after it was writable again",
    )


def test_a_second_process_is_refused_and_a_killed_or_copied_one_leaves_no_lock(
    start: Any,
    cultivar: Any,
    tiny: Path,
    assert_undisturbed: Any,
    tmp_path: Path,
    fault_row: Any,
) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    first = start("evolve", tiny, "--run-dir", run, slow_disk=True)
    first.wait_for(run / "journal.jsonl", b'"generation":1,"genome":"')
    holder = json.loads((run / "run.lock").read_text())
    assert (holder["pid"], holder["host"]) == (first.pid, socket.gethostname())
    for arguments in (("evolve", tiny, "--run-dir", run), ("resume", run)):
        code, out, errors = cultivar(*arguments, "--quiet")
        assert (code, out) == (2, "")
        assert errors == (
            f"RunDirectoryError: {run} is in use by process {first.pid} on {socket.gethostname()} "
            f"since {holder['since']}; wait for it, or stop it first\n"
        )
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(".*"))
    first.signal(signal.SIGKILL)
    assert first.end()[0] == -signal.SIGKILL
    for directory in (run, copy):
        assert json.loads((directory / "run.lock").read_text()) == holder
        code, _, errors = cultivar("resume", directory)
        assert code == 0, errors
        assert json.loads((directory / "run.lock").read_text())["pid"] == os.getpid()
        assert_undisturbed(directory)
    fault_row(
        fault="two drivers on one run directory",
        how="`evolve` and `resume` while another process works there",
        noticed="the lock, within a second; the sentence names the process",
        extra="none",
        outcome="the second is refused, the first goes on",
    )
    fault_row(
        fault="a stale lock, and a run directory copied while its run goes on",
        how="`kill -9` of the driver; the copy is made before that",
        noticed="the kernel holds locks for open files, so that nothing is locked",
        extra="the batch in flight",
        outcome="same bytes, in the directory and in the copy",
    )


def test_a_lock_that_cannot_be_named_still_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.errors import RunDirectoryError
    from engine.run_lock import take_lock

    def refuse(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        lock = take_lock(tmp_path)
    with lock, pytest.raises(RunDirectoryError, match="in use by an unknown process; wait"):
        take_lock(tmp_path)
    take_lock(tmp_path).close()


def test_a_process_on_another_machine_is_named_with_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.errors import RunDirectoryError
    from engine.run_lock import holder_of, take_lock

    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "the-other-one")
        lock = take_lock(tmp_path)
    with lock:
        holder = holder_of(tmp_path)
        assert str(holder).startswith(f"process {os.getpid()} on the-other-one since 2")
        with pytest.raises(RunDirectoryError) as refused:
            take_lock(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} is in use by {holder}; wait for it, or stop it on that machine, which is "
        "another one"
    )
    assert holder_of(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        *("", "4242\n", "[" * 5000, '{"pid": "x"}', '{"pid": 1e999}'),
        '{"pid": 7, "host": "\\u001b[2J", "since": ""}',
    ],
)
def test_a_lock_with_other_content_still_locks(tmp_path: Path, content: str) -> None:
    from engine.errors import RunDirectoryError
    from engine.run_lock import holder_of, take_lock

    with take_lock(tmp_path):
        (tmp_path / "run.lock").write_text(content, encoding="utf-8")
        assert holder_of(tmp_path) == "an unknown process"
        with pytest.raises(RunDirectoryError, match="in use by an unknown process; wait"):
            take_lock(tmp_path)


def test_a_network_disk_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    from engine.errors import RunDirectoryError
    from engine.run_lock import take_lock

    def refuse(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunDirectoryError, match=r"cannot lock .*: No locks available; nothing was"):
        take_lock(tmp_path)


def test_a_journal_that_cannot_be_begun_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from populations.errors import JournalError

    n_open = len(list(Path("/proc/self/fd").iterdir()))
    FullDisk(monkeypatch).refuse("journal.jsonl")
    with pytest.raises(JournalError, match=r"journal\.jsonl: No space left on device"):
        Journal.create(tmp_path / "journal.jsonl")
    assert len(list(Path("/proc/self/fd").iterdir())) == n_open
    assert (tmp_path / "journal.jsonl").read_bytes() == b""
