"""A run of one second, and ways to start it, to stop it, and to compare what came out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from populations.leaderboard import stable_bytes

ROOT = Path(__file__).parents[2]
SMALL = """
seed: 3
teachers:
  hidden: [32, 32]
  training: {steps: [30000, 12000], checkpoints: 3, checkpoint_episodes: 8}
states: {size: 512, episodes: 8}
network: {hidden: [8, 8]}
distillation: {students: 6, steps: 100, ancestor_steps: 100}
finetune: {steps: 30, inherit: [learning_rate]}
finetune_presets:
  short: {steps: 10}
evolution:
  generations: 3
  population: 4
  children: 10
  elites: 2
  batch_size: 4
  controls: 1
  draw: bandit
  recipes: [{operator: [weighted, unit, layer], finetune: [default, short]}]
  mutation: {adapt: 0.2}
evaluation: {episodes: 8, holdout_episodes: 16, champion_candidates: 3}
dispatch: {workers: 0}
"""
NAMES = ("states.npz", "champion.safetensors", "champion.json", "recipes.csv")
# The command as it is, on a disk that takes its time: so that a signal can be sent after one
# certain line of the journal and not some time later.
ON_A_SLOW_DISK = """
import os, sys, time
fsync = os.fsync
os.fsync = lambda descriptor: (time.sleep(0.05), fsync(descriptor))
from engine.cli.main import main
main()
"""

Cultivar = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration of a small run, with networks that have learned something."""
    path = tmp_path_factory.mktemp("small") / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture
def cultivar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Cultivar:
    """Return a function that runs the command in this process: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["cultivar", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main.main()
        out, err = capsys.readouterr()
        assert isinstance(exited.value.code, int)
        return exited.value.code, out, err

    return run


class Command:
    """The command in a process and a session of its own, with a temporary folder of its own."""

    def __init__(
        self,
        *arguments: str | Path,
        slow_disk: bool = False,
        script: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="t-"))
        script = ON_A_SLOW_DISK if slow_disk else script
        how = ["-c", script] if script else ["-m", "engine.cli.main"]
        environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        environment |= variables or {}
        with (self.folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *how, *map(str, arguments)],
                env=environment | {"TMPDIR": str(self.folder)},
                cwd=ROOT,
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def wait_for(self, file: Path, content: bytes, timeout_s: float = 60) -> None:
        """Wait until a file that the process writes holds ``content``."""
        deadline = time.monotonic() + timeout_s
        while not (file.exists() and content in file.read_bytes()):
            assert self._process.poll() is None, f"it ended too early: {self.errors()}"
            assert time.monotonic() < deadline, f"it never wrote {content!r}: {self.errors()}"
            time.sleep(0.002)

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals, to_all: bool = False) -> None:
        """Send a signal; to all processes of the group, as a terminal does."""
        (os.killpg if to_all else os.kill)(self._process.pid, number)

    def end(self, timeout_s: float = 60) -> tuple[int, str, str]:
        """Wait for the end, and return exit code, output and errors."""
        out, _ = self._process.communicate(timeout=timeout_s)
        return self._process.returncode, out.decode(), self.errors()

    def errors(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def left_over(self) -> dict[int, str]:
        """Return what still runs in the session of the process: commands by process id."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self._process.pid:
                    command = (entry / "cmdline").read_text(errors="replace")
                    found[int(entry.name)] = command.replace("\0", " ").strip()
            except (ProcessLookupError, FileNotFoundError):
                continue
        return found

    def clean_up(self) -> None:
        """End whatever still runs, and remove the temporary folder."""
        for pid in self.left_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Return a function that starts the command in a process of its own."""
    commands: list[Command] = []

    def begin(*arguments: str | Path, **options: Any) -> Command:
        commands.append(Command(*arguments, **options))
        return commands[-1]

    yield begin
    for command in commands:
        command.clean_up()


def outcome(run_directory: Path) -> dict[str, bytes]:
    """Return all files of a run that must not depend on where and when it was computed."""
    files = [
        *sorted((run_directory / "genomes").iterdir()),
        *sorted((run_directory / "teachers").iterdir()),
        *(run_directory / name for name in NAMES),
    ]
    found = {str(file.relative_to(run_directory)): file.read_bytes() for file in files}
    return found | {"leaderboard.csv": stable_bytes(run_directory / "leaderboard.csv")}


@pytest.fixture(scope="session")
def outcome_of() -> Callable[[Path], dict[str, bytes]]:
    """Return the function that reads what must not differ between two runs of one seed."""
    return outcome


@pytest.fixture(scope="session")
def assert_same_outcome(reference: Path) -> Callable[[Path], None]:
    """Return a function that compares a finished run with the uninterrupted one."""
    expected = outcome(reference)

    def compare(run_directory: Path) -> None:
        found = outcome(run_directory)
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == []

    return compare


@pytest.fixture(scope="session")
def reference(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the run, carried out in this process without a break."""
    from engine.config_file import load_config
    from engine.launch import launch
    from engine.progress import SilentProgress

    directory = tmp_path_factory.mktemp("reference") / "run"
    config = load_config(small).model_copy(update={"name": "small-3"})
    launch(config, directory, SilentProgress())
    return directory
