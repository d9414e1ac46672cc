"""Whatever a user gets wrong costs one sentence and exit code 2, and nothing else."""

from __future__ import annotations

import fcntl
import fractions
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

TENSORS = {
    "network.0.weight": np.ones((8, 4), np.float32),
    "network.0.bias": np.ones(8, np.float32),
    "network.2.weight": np.ones((2, 8), np.float32),
    "network.2.bias": np.ones(2, np.float32),
}


@pytest.fixture
def refused(cultivar, small) -> Callable[..., str]:
    """Return a function that starts a run, sees it refused, and returns the one line it says."""

    def refuse(
        *arguments: str | Path, command: str = "evolve", leaves: bool = False, exits: int = 2
    ) -> str:
        first = [small] if command == "evolve" else []
        run = ["--run-dir", "run"] if command == "evolve" and "--run-dir" not in arguments else []
        code, out, err = cultivar(command, *first, *run, *arguments, "--quiet")
        assert (code, out) == (exits, "")
        assert "Traceback" not in err
        assert err.count("\n") == 1, f"more than one line: {err}"
        assert Path("run").exists() == leaves
        return err.removesuffix("\n")

    return refuse


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "evolution.generation=3",
            "ConfigError: .*: evolution.generation is not a setting. "
            r"Did you mean evolution.generations\?",
        ),
        ("generations=3", r"generations is not a setting. Did you mean evolution.generations\?"),
        ("evolution.elites=many", "evolution.elites must be a whole number, not 'many'"),
        ("evolution.elites=1.5", "evolution.elites must be a whole number, not 1.5"),
        ("evolution.elites=5", r"evolution.elites \(5\) must not exceed .*population \(4\)"),
        ("evolution.children=true", "evolution.children must be a number, not true"),
        ("evolution.population=1", "evolution.population must be at least 2, not 1"),
        ("seed=-1", "seed must be at least 0, not -1"),
        ("seed", "seed: expected an override such as evolution.generations=20"),
        ("evolution=[1", r"evolution=\[1"),
        ("environment.id=CartPol-v1", "TaskError: no environment .*Did you mean 'CartPole-v1'"),
        ("environment.id=Pendulum-v1", "Pendulum-v1 must have Discrete actions"),
        ("environment.kwargs.length=3", "CartPole-v1 cannot be made with environment.kwargs"),
        ("evolution.selection.name=tournamnt", "ConfigError: .*selection.*Did you mean 'tourn"),
        ("evolution.selection.params.sise=3", "ConfigError: evolution.selection: .*sise"),
        ("evolution.mutation.name=gausian", "ConfigError: .*mutation.*Did you mean 'gaussian'"),
        ("evolution.recipes=[{operator: weigthed}]", "Did you mean 'weighted'"),
        ("evolution.recipes=[]", "evolution.recipes must be a list of at least 1"),
        ("dispatch.address=auto", "dispatch.workers is 0, .* dispatch.address is auto"),
    ],
)
def test_a_setting_that_cannot_be_is_named(refused, setting, message) -> None:
    assert re.search(message, refused("--set", setting))


def test_all_wrong_settings_are_told_at_once(cultivar, small) -> None:
    code, _, err = cultivar("evolve", small, "--set", "sed=1", "--set", "evolution.elites=x")
    assert code == 2
    assert "2 errors" in err
    assert "Did you mean seed?" in err
    assert "evolution.elites must be a whole number, not 'x'" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--operator", "weigthed"], "no crossover named 'weigthed'. Did you mean 'weighted'"),
        (["--operator", "a}, {b"], "no crossover named 'a}, {b'"),
        (["--workers", "-1"], "dispatch.workers must be at least 0, not -1"),
        (["--address", "auto"], "dispatch.workers is 0, .*dispatch.address is auto; leave one"),
        (["--plugin", "none.py"], r"PluginError: expected a plug-in file, .*none.py"),
    ],
)
def test_an_option_that_cannot_be_is_named(refused, options, message) -> None:
    assert re.search(message, refused(*options))


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("smok", r"no preset is named 'smok'. Did you mean 'smoke'\? Available: "),
        ("none.yaml", "none.yaml: expected a configuration file, but it is missing"),
        ("bad.yaml", "bad.yaml, line 3: expected"),
        ("list.yaml", "list.yaml: expected settings such as 'seed: 1'"),
        ("code.yaml", "code.yaml"),
        (".", "cannot be read: Is a directory|no preset is named"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named(cultivar, tmp_path, preset, message) -> None:
    (tmp_path / "bad.yaml").write_text("seed: 1\nevolution: [1\n", encoding="utf-8")
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    code_tag = "seed: !!python/object/apply:os.mkdir [ran]\n"
    (tmp_path / "code.yaml").write_text(code_tag, encoding="utf-8")
    code, out, err = cultivar("evolve", preset, "--quiet")
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "runs").exists()


def changed(**tensors: np.ndarray) -> dict[str, np.ndarray]:
    return TENSORS | {name.replace("_", "."): tensor for name, tensor in tensors.items()}


def save_pt(path: Path, content: object) -> None:
    torch.save(content, path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def write_teacher(folder: Path, kind: str) -> Path:
    """Write a file that cannot be a teacher of CartPole."""
    as_torch = {name: torch.from_numpy(tensor) for name, tensor in TENSORS.items()}
    path = folder / ("teacher.pt" if kind.startswith("pt ") else "teacher.safetensors")
    if kind == "pt truncated":
        save_pt(path, as_torch)
        truncate(path)
    elif kind == "pt object":
        save_pt(path, {"state_dict": as_torch, "best": fractions.Fraction(1, 2)})
    elif kind == "pt nan":
        save_pt(path, as_torch | {"network.2.bias": torch.tensor([0.0, float("nan")])})
    elif kind == "pt text":
        path.write_text("weights", encoding="utf-8")
    elif kind == "truncated":
        save_file(TENSORS, path)
        truncate(path)
    elif kind == "nan":
        save_file(TENSORS | {"network.0.weight": np.full((8, 4), np.nan, np.float32)}, path)
    elif kind == "inputs":
        save_file(TENSORS | {"network.0.weight": np.ones((8, 3), np.float32)}, path)
    elif kind == "layers":
        save_file(TENSORS | {"network.2.weight": np.ones((2, 9), np.float32)}, path)
    elif kind == "integers":
        save_file(TENSORS | {"network.2.bias": np.ones(2, np.int64)}, path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    else:
        assert kind == "missing"
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "expected the file of a trained Q-network, but there is none"),
        ("folder", "expected the file of a trained Q-network, but there is none"),
        ("empty", "teacher.safetensors"),
        ("truncated", "truncated|incomplete|damaged|length"),
        ("nan", "network.0.weight holds NaN or infinity"),
        ("integers", "network.2.bias must be floating point, not int64"),
        ("layers", r"network.2.weight must have shape \(2, 8\)"),
        ("inputs", "CartPole-v1 has observations of 4 numbers and 2 actions, .*takes 3 numbers"),
        ("pt truncated", "the file is truncated or damaged"),
        ("pt text", "not a file that torch.save wrote"),
        ("pt nan", "network.2.bias holds NaN or infinity"),
        ("pt object", r"would run code from it \(fractions.Fraction\).*torch.save\(model.state"),
    ],
)
def test_a_teacher_that_cannot_teach_is_named(refused, tmp_path, kind, message) -> None:
    path = write_teacher(tmp_path, kind)
    line = refused("--set", f"teachers.files=[{path}]")
    assert line.startswith("TeacherError: ")
    assert str(path) in line
    assert re.search(message, line)


def test_teachers_of_two_architectures_are_both_described(refused, tmp_path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_file(TENSORS, first)
    save_file(
        {
            "0.weight": np.ones((5, 4), np.float32),
            "0.bias": np.ones(5, np.float32),
            "2.weight": np.ones((2, 5), np.float32),
            "2.bias": np.ones(2, np.float32),
        },
        second,
    )
    line = refused("--set", f"teachers.files=[{first}, {second}]")
    assert "teachers must share one architecture" in line
    assert f"{first} has hidden widths [8]" in line
    assert f"{second} has hidden widths [5]" in line


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (None, "but there is none"),
        (b"", "cannot be read"),
        (b"text", "cannot be read"),
        (np.zeros((100, 3), np.float32), r"of shape \(N, 4\), not \(100, 3\)"),
        (np.zeros(400, np.float32), r"of shape \(N, 4\), not \(400,\)"),
        (np.zeros((100, 4), np.int64), "not int64"),
        (np.zeros((10, 4), np.float32), "at least 64 states, not 10"),
        (np.full((100, 4), np.nan, np.float32), "100 rows hold NaN or infinity, .* row 0"),
        (np.array([{}] * 100), "cannot be read|not object"),
    ],
)
def test_states_that_cannot_be_used_are_named(refused, tmp_path, states, message) -> None:
    path = tmp_path / "states.npy"
    if isinstance(states, bytes):
        path.write_bytes(states)
    elif states is not None:
        np.save(path, states, allow_pickle=True)
    line = refused("--set", f"states.file={path}")
    assert line.startswith(f"StatesError: {path}: ")
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def broken(:\n", "cannot load the plug-in file .*bad.py.*line 1"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("x = 1\n", "defines no operator"),
        (
            "from strategies.crossover.clone import CloneCrossover\n"
            "class Mine(CloneCrossover):\n    name = 'weighted'\n",
            "'weighted'",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(refused, tmp_path, code, message) -> None:
    (tmp_path / "bad.py").write_text(code, encoding="utf-8")
    line = refused("--plugin", tmp_path / "bad.py")
    assert re.search(message, line)


def test_a_plugin_with_a_comma_in_its_path_is_found(refused, tmp_path) -> None:
    path = tmp_path / "one, two.py"
    path.write_text("x = 1\n", encoding="utf-8")
    assert f"{path} defines no operator" in refused("--plugin", path)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "4"], "seed is 3 there and 4 here"),
        (["--set", "network.hidden=[8]"], r"network.hidden is \[8, 8\] there and \[8\] here"),
        (["--set", "evolution.generations=4"], "evolution.generations is 3 there and 4 here"),
    ],
)
def test_another_run_is_not_overwritten(refused, reference, tmp_path, change, message) -> None:
    shutil.copytree(reference, tmp_path / "run")
    before = contents(tmp_path / "run")
    line = refused(*change, leaves=True)
    assert line.startswith("RunDirectoryError: run holds another run: ")
    assert re.search(message, line)
    assert "choose another --run-dir" in line
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("name", ["notes.txt", "config.yaml", "champion.safetensors"])
def test_a_directory_with_other_files_is_not_used(refused, tmp_path, name) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("seed: 3  # mine\n", encoding="utf-8")
    before = contents(tmp_path / "run")
    line = refused(leaves=True)
    assert line == (
        "RunDirectoryError: run is not empty and not a run directory; choose another --run-dir"
    )
    assert contents(tmp_path / "run") == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_a_file_is_not_a_run_directory(refused, tmp_path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert "file is not a directory" in refused("--run-dir", tmp_path / "file")
    assert "cannot create the run directory" in refused("--run-dir", tmp_path / "file/run")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("command", ["evolve", "resume"])
def test_a_directory_in_use_is_left_alone(refused, reference, tmp_path, command) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    before = contents(run)
    with (run / "run.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        holder = {"pid": os.getpid(), "host": "here", "since": "2026-01-01T00:00:00+00:00"}
        lock.write(json.dumps(holder))
        lock.flush()
        arguments = [run] if command == "resume" else []
        line = refused(*arguments, command=command, leaves=True)
    assert f"run is in use by process {os.getpid()}" in line
    assert contents(run) == before


def test_only_a_run_can_be_resumed(refused, reference, tmp_path) -> None:
    assert "none is not a run directory" in refused("none", command="resume")
    (tmp_path / "empty").mkdir()
    assert "empty is not a run directory" in refused("empty", command="resume")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.yaml").write_text("seed: 1  # mine\n", encoding="utf-8")
    assert "other is not empty and not a run directory" in refused("other", command="resume")
    assert len(list((tmp_path / "other").iterdir())) == 1


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.yaml", lambda file: file.unlink(), "it has no config.yaml"),
        ("states.npz", lambda file: file.unlink(), "states.npz is missing or was altered"),
        ("teachers/teacher-1.safetensors", truncate, "teacher-1.safetensors is missing or was al"),
        ("journal.jsonl", lambda file: file.write_text("{}\n"), "journal.jsonl is not a journal"),
    ],
)
def test_a_damaged_run_is_not_resumed(refused, reference, tmp_path, file, change, message) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    journal = run / "journal.jsonl"  # without its last event, the run is not finished
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    change(run / file)
    assert message in refused(run, command="resume", leaves=True)
    for name in ("champion.safetensors", "champion.json", "leaderboard.csv"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()


@pytest.mark.parametrize(
    ("address", "exits", "message"),
    [
        ("auto", 75, "no Ray cluster runs on this machine: start one with 'ray start --head'"),
        ("127.0.0.1:1", 75, "no Ray cluster answers at 127.0.0.1:1: Connection refused"),
        ("nonsense", 2, "--address must be local, auto, HOST:PORT or ray://HOST:PORT, not '"),
    ],
)
def test_a_cluster_that_is_not_there_is_told_within_seconds(
    refused, tmp_path, monkeypatch, address, exits, message
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    began = time.monotonic()
    asked = ("--set", "dispatch.workers=null", "--address", address)
    line = refused(*asked, leaves=True, exits=exits)
    assert time.monotonic() - began < 4
    kind = "ClusterUnavailableError" if exits == 75 else "DispatchError"
    assert line.startswith(f"{kind}: {message}")


def test_a_usage_error_has_the_same_exit_code(cultivar) -> None:
    for arguments in (["evolve"], ["evolve", "smoke", "--worker", "1"], ["evolv"]):
        code, out, err = cultivar(*arguments)
        assert (code, out) == (2, "")
        assert "Error: " in err


def test_the_process_itself_exits_with_two_and_one_line(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli.main", "evolve", "smoke", "--set", "sed=1"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ConfigError: smoke: sed is not a setting. Did you mean seed?\n"
