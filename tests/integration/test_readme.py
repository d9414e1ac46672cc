"""Every command in README.md does what the text around it says, exactly as it is written there.

They run one after another in one copy of the checkout, as a reader would type them, and it holds
the files that the text speaks of. A test that is run alone runs the commands before its own too.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from populations.leaderboard import load_leaderboard, stable_bytes
from populations.storage import load_genome, load_pack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
# As they are written, each with its comment, by what they are without it.
COMMANDS = {
    re.sub(r"\s+# .*", "", line): line
    for language, block in BLOCKS
    if language == "sh"
    for line in block.splitlines()
}
BUILT_IN = ("weighted", "unit", "layer", "random")

Check = Callable[[Path, str], None]
CHECKS: dict[str, Check] = {}


def after(command: str) -> Callable[[Check], Check]:
    """Return a decorator for what is checked after a command: its folder and what it printed."""

    def enter(check: Check) -> Check:
        CHECKS[command] = check
        return check

    return enter


@after("make demo")
def the_demo_breeds_what_the_introduction_says(folder: Path, out: str) -> None:
    run = folder / "runs/cartpole-0"
    champion = champion_of(run, out)
    teachers = champion["teachers"]
    assert champion["kind"] == "child"
    assert champion["fitness_holdout"] > max(one["fitness_holdout"] for one in teachers)
    # The text has returns too, but another processor may round differently while it trains.
    words = " ".join(README.split())
    assert f"({champion['parameters']} parameters, {champion['size_bytes'] / 1024:.1f} KB)" in words
    assert [f"{one['size_bytes'] / 1024:.0f} KB" for one in teachers] == ["71 KB"] * 4
    assert "Four half-trained CartPole teachers of 71 KB each" in words


@after("cultivar evolve cartpole")
def a_preset_that_has_run_is_not_run_again(folder: Path, out: str) -> None:
    champion_of(folder / "runs/cartpole-0", out)


@after("cultivar status runs/cartpole-0")
def the_status_tells_how_far_a_run_is_and_which_operator_works(folder: Path, out: str) -> None:
    assert "all 10 generations, champion chosen" in out
    assert re.search(r"^kind +operator +births .* vs parent +beat parent$", out, re.MULTILINE)
    for operator in BUILT_IN:
        assert re.search(rf"^child +{operator} +\d+ ", out, re.MULTILINE)


@after("cultivar leaderboard runs/cartpole-0 --top 10")
def the_leaderboard_has_as_many_rows_as_asked_for(folder: Path, out: str) -> None:
    header, *rows = out.splitlines()
    assert {"genome", "operator", "fitness"} <= set(header.split())
    assert [row.split()[0] for row in rows] == [str(place) for place in range(1, 11)]
    assert summary(folder / "runs/cartpole-0")["genome"] in rows[0]


@after("cultivar show runs/cartpole-0 champion")
def the_champion_is_shown_with_parents_scores_and_family(folder: Path, out: str) -> None:
    champion = summary(folder / "runs/cartpole-0")
    assert f"{champion['genome']}, the champion" in out
    assert f"held-out       {champion['fitness_holdout']:.1f} ± " in out
    _, _, tree = out.partition("family tree")
    assert len(champion["parents"]) == 2
    assert all(parent in tree for parent in champion["parents"])


@after("cultivar resume runs/cartpole-0")
def a_finished_run_that_is_resumed_is_kept(folder: Path, out: str) -> None:
    run = folder / "runs/cartpole-0"
    champion_of(run, out)
    for name in ("genomes", "teachers", "config.yaml", "leaderboard.csv", "journal.jsonl"):
        assert (run / name).exists()
    frame = load_leaderboard([run])
    born = set(frame["genome"][frame["kind"].isin(["student", "child", "control"])])
    packs = [load_pack(file) for file in (run / "genomes").iterdir()]
    assert len(born) > 500
    assert born <= {genome for pack in packs for genome in pack}


@after("python play.py runs/cartpole-0/champion.safetensors")
def the_champion_is_played_with_numpy_alone(folder: Path, out: str) -> None:
    played = re.fullmatch(r"return (\d+)\n", out)
    assert played is not None
    assert int(played[1]) > 0.8 * summary(folder / "runs/cartpole-0")["fitness_holdout"]


@after(
    "cultivar evolve cartpole --run-dir runs/mine "
    "--set 'teachers.files=[teacher-a.pt, teacher-b.pt]'"
)
def a_run_takes_teachers_from_files(folder: Path, out: str) -> None:
    champion = champion_of(folder / "runs/mine", out)
    before = summary(folder / "runs/cartpole-0")["teachers"]
    assert len(champion["teachers"]) == 2
    # The same networks on the same held-out episodes, whatever file they came from.
    assert [t["fitness_holdout"] for t in champion["teachers"]] == [
        t["fitness_holdout"] for t in before[:2]
    ]


@after("cultivar evolve cartpole --run-dir runs/cluster --address auto")
def a_run_on_a_cluster_writes_the_same_leaderboard(folder: Path, out: str) -> None:
    champion_of(folder / "runs/cluster", out)
    assert leaderboard_bytes(folder / "runs/cluster") == leaderboard_bytes(
        folder / "runs/cartpole-0"
    )


@after("cultivar operators")
def all_operators_are_listed(folder: Path, out: str) -> None:
    listed = {line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")}
    files = {file.stem for file in (ROOT / "strategies" / "crossover").glob("[a-z]*.py")}
    assert len(files) > 20
    assert files | {"gaussian", "safe", "tournament"} <= listed


@after("cultivar operators show ties")
def one_operator_is_explained(folder: Path, out: str) -> None:
    assert "arXiv:2306.01708" in out
    assert "density" in out
    assert "ancestor" in out


@after(
    "cultivar evolve cartpole --run-dir runs/bandit --set evolution.draw=bandit "
    "--set 'evolution.recipes=[{operator: [weighted, unit, layer, ties], align: [auto, none]}]'"
)
def a_bandit_draws_the_recipes(folder: Path, out: str) -> None:
    champion_of(folder / "runs/bandit", out)
    frame = load_leaderboard([folder / "runs/bandit"])
    bred = frame[frame["kind"] == "child"]
    drawn = bred.groupby(["operator", "align"]).size()
    assert len(drawn) == 8
    assert drawn.sum() == 640
    assert (bred["status"] == "ok").mean() > 0.9


@after("cultivar status runs/bandit")
def the_status_shows_what_each_recipe_has_come_to(folder: Path, out: str) -> None:
    assert "8 recipes, drawn by a bandit" in out
    assert len(re.findall(r"^\d +\w+ +(?:auto|none) +\d+ ", out, re.MULTILINE)) == 8


@after("cultivar operators check blend.py:BlendCrossover")
def an_operator_of_a_file_is_checked(folder: Path, out: str) -> None:
    assert "read-only" in out
    assert "all 17 checks passed" in out


@after("cultivar evolve cartpole --run-dir runs/blend --plugin blend.py --operator blend")
def a_run_breeds_with_the_operator_of_a_file(folder: Path, out: str) -> None:
    champion_of(folder / "runs/blend", out)
    frame = load_leaderboard([folder / "runs/blend"])
    bred = frame[frame["kind"] == "child"]
    assert len(bred) > 100
    assert set(bred["operator"]) == {"blend"}
    assert (bred["status"] == "ok").mean() > 0.9


@after(
    "cultivar leaderboard runs/cartpole-0 runs/blend "
    '--where "generation >= 3 and fitness > 450" --sort -fitness'
)
def rows_of_several_runs_are_filtered_and_sorted(folder: Path, out: str) -> None:
    header, *rows = out.splitlines()
    frame = load_leaderboard([folder / "runs/cartpole-0", folder / "runs/blend"])
    assert set(frame["run"]) == {"cartpole-0", "blend"}  # so that they can be told apart
    assert {"run", "genome", "fitness"} <= set(header.split())
    # A fitness is the first number with an error; a held-out return may follow it.
    found = [re.search(r" (\d+\.\d) ± ", row) for row in rows]
    fitness = [float(match[1]) for match in found if match]
    assert len(fitness) == len(rows) > 0
    assert fitness == sorted(fitness, reverse=True)
    assert min(fitness) > 450


@after("cultivar leaderboard runs/cartpole-0 --by operator")
def fitness_is_summed_up_by_operator(folder: Path, out: str) -> None:
    grouped = [line.split()[:2] for line in out.splitlines() if line]
    assert all(["child", operator] in grouped for operator in BUILT_IN)
    assert {"count", "mean", "median", "best"} <= set(out.split())


@after("cultivar leaderboard runs/cartpole-0 --columns genome,operator,fitness --format csv")
def columns_are_chosen_and_written_as_csv(folder: Path, out: str) -> None:
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["genome", "operator", "fitness"]
    genomes = [row["genome"] for row in rows if row["genome"]]  # baselines have none
    assert len(genomes) == len(set(genomes)) > 500


@after("cultivar distill --epochs 25 --output-dir runs/students")
def each_random_teacher_gets_a_student(folder: Path, out: str) -> None:
    for label in "AB":
        assert f"parent_{label} -> student_{label}: " in out
        for name in (f"parent_{label}.pt", f"student_{label}.pt", f"student_{label}.pt.json"):
            assert (folder / "runs/students" / name).is_file()


@after("cultivar validate-distillation --checkpoint-dir runs/students --report-dir runs/reports")
def students_pass_on_states_that_nothing_was_trained_on(folder: Path, out: str) -> None:
    for label in "AB":
        file = folder / f"runs/reports/student_{label}_validation.json"
        report = json.loads(file.read_text(encoding="utf-8"))
        assert report["passed"] is True
        assert report["states"]["held_out"] is True
        assert f"student {label}: passed" in out


def summary(run: Path) -> dict:
    return json.loads((run / "champion.json").read_text(encoding="utf-8"))


def champion_of(run: Path, out: str) -> dict:
    """Check what every finished run leaves and prints, and return what is known of its champion."""
    champion = summary(run)
    assert load_genome(run / "champion.safetensors").id == champion["genome"]
    assert re.search(r"^ *#  genome .* fitness ", out, re.MULTILINE), "no leaderboard"
    assert f"\nchampion {champion['genome']}, " in out
    return champion


def leaderboard_bytes(run: Path) -> bytes:
    return stable_bytes(run / "leaderboard.csv")


def execute(command: str, folder: Path, **variables: str) -> str:
    """Run a line in a shell, as somebody would who has activated the environment in ``folder``."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "MAKE", "MFLAGS", "PYTHON"))
    }
    path = f"{folder / '.venv/bin'}:{inherited['PATH']}"
    # A path of pytest's own is too long for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:
        done = subprocess.run(
            ["bash", "-c", command],
            env=inherited | {"PATH": path, "TMPDIR": temporary} | variables,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout that was never made."""
    folder = tmp_path_factory.mktemp("readme") / "checkout"
    for name in ("engine", "strategies", "populations", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("README.md", "LICENSE"):  # metadata of the package
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def made(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout in which make finds its environment.

    The environment borrows our dependencies, so that nothing has to be downloaded. As in
    ``test_wheel.py``, a ``.pth`` file does not lend what our own ``.pth`` files install.
    """
    folder = tmp_path_factory.mktemp("made") / "checkout"
    shutil.copytree(checkout, folder)
    execute(f"{sys.executable} -m venv --without-pip .venv", folder)
    packages = execute(
        "python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'", folder
    )
    borrowed = Path(packages.strip(), "dependencies.pth")
    borrowed.write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    offline = "--quiet --no-deps --no-build-isolation --no-index"
    execute(f"{sys.executable} -m pip --python .venv install {offline} --editable .", folder)
    execute("touch .venv/.installed", folder)
    return folder


@pytest.fixture(scope="module")
def head(made: Path) -> Iterator[dict[str, str]]:
    """Run the head of a Ray cluster, and return the variables of somebody who may use it.

    It listens on loopback only and asks for a token. Its processes share a session, by which they
    are found again.
    """
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as home:
        token = Path(home, "token")
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="utf-8")
        variables = {
            "RAY_TMPDIR": home,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every socket on 127.0.0.1
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "PYTHON"))}
        with Path(home, "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(made / ".venv/bin/python", "-m", "ray.scripts.scripts", "start", "--head"),
                    *("--block", "--num-cpus=2", f"--object-store-memory={200 * 2**20}"),
                    *("--node-ip-address=127.0.0.1", f"--port={free_port()}"),
                    *("--include-dashboard=false", f"--ray-client-server-port={free_port()}"),
                ],
                env=inherited | variables,
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
            yield variables
        finally:
            for pid in session_of(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def session_of(leader: int) -> list[int]:
    """Return the ids of all processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ProcessLookupError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
    return found


class Reader:
    """Somebody who types the commands of the text, one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._left = iter(CHECKS)
        self._printed: dict[str, str] = {}
        for language, block in BLOCKS:
            if language == "python":
                name, _, code = block.removeprefix("# ").partition("\n")
                (folder / name).write_text(code, encoding="utf-8")

    def type_up_to(self, command: str, cluster: Callable[[], dict[str, str]]) -> str:
        """Execute what has not been executed yet, up to ``command``, and return what it printed.

        Args:
            command: What to execute last.
            cluster: Starts the cluster that the text takes for granted; returns its variables.
        """
        while command not in self._printed:
            one = next(self._left)
            variables = cluster() if "--address auto" in one else {}
            self._printed[one] = execute(COMMANDS[one], self.folder, **variables)
            if one == "make demo":
                self._save_teachers()
        return self._printed[command]

    def _save_teachers(self) -> None:
        """Save two teachers as torch does, for those who bring their own."""
        for letter, number in (("a", 0), ("b", 1)):
            teacher = self.folder / f"runs/cartpole-0/teachers/teacher-{number}.safetensors"
            torch.save(load_file(teacher), self.folder / f"teacher-{letter}.pt")


@pytest.fixture(scope="module")
def reader(made: Path) -> Reader:
    return Reader(made)


def test_no_command_of_the_text_is_left_out() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    demo, *others = CHECKS
    assert list(COMMANDS) == [demo, "make test", *others]


@pytest.mark.ray
@pytest.mark.parametrize("command", CHECKS, ids=[check.__name__ for check in CHECKS.values()])
def test_the_text_is_true(reader, request, command) -> None:
    printed = reader.type_up_to(command, lambda: request.getfixturevalue("head"))
    CHECKS[command](reader.folder, printed)


def test_commands_within_sentences_work(made) -> None:
    named = set(re.findall(r"`(cultivar [^`]+)`", README))
    # The doctor has a test of its own, for which there has to be a cluster; resume is in a block.
    assert named == {"cultivar settings", "cultivar resume", "cultivar doctor --address auto"}
    assert "evolution.generations" in execute("cultivar settings", made)
    # The search path has .venv/bin anyway: what counts is that there is something to activate.
    assert "`source .venv/bin/activate`" in README
    activated = execute("source .venv/bin/activate && command -v cultivar", made)
    assert activated.strip() == str(made / ".venv/bin/cultivar")


@pytest.mark.ray
def test_the_doctor_shows_every_node_and_how_fast_they_breed(made, head) -> None:
    printed = execute("cultivar doctor --address auto", made, **head)
    header, node, *_ = printed.splitlines()
    assert header.split()[:2] == ["node", "slots"]
    assert node.rstrip().endswith("as here")
    assert re.search(r"^[\d,]+ births in .* per second with 2 workers", printed, re.MULTILINE)


def test_make_test_runs_the_tests_that_this_one_is_part_of(made, request) -> None:
    # Planned and not executed, since this test would run itself again and again.
    assert COMMANDS["make test"].startswith("make test ")
    planned = execute("make --dry-run test", made)
    assert planned == ".venv/bin/python -m pytest\n"
    folders = [ROOT / folder for folder in request.config.getini("testpaths")]
    assert any(Path(__file__).is_relative_to(folder) for folder in folders)


def test_make_takes_torch_from_the_index_that_is_given(checkout) -> None:
    assert "`make demo TORCH_INDEX=<" in README
    planned = execute("make --dry-run demo TORCH_INDEX=somewhere", checkout)
    assert "-m pip install" in planned
    assert "--extra-index-url somewhere" in planned
    assert "--extra-index-url" not in execute("make --dry-run demo", checkout)
