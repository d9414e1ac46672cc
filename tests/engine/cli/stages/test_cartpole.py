from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from engine.cli import main
from engine.cli.stages.parent_options import parent_options

SMALL = ("--episodes", "2", "--eval-episodes", "2", "--hidden-size", "16")
SCRIPT = Path(__file__).parents[4] / "scripts" / "train_cartpole_parents.py"


def run(capsys, *arguments: str) -> tuple[object, str, str]:
    """Return exit code, output and errors of the command."""
    with pytest.raises(SystemExit) as exited:
        main.main(["train-cartpole-parents", *arguments])
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


def test_the_script_writes_parents_and_says_how_they_play(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *SMALL, "--output-dir", tmp_path / "new"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for label in "AB":
        assert f"parent_{label}: greedy return " in done.stdout
        written = f"wrote {tmp_path / 'new' / f'parent_{label}.pt'}, parent_{label}_int8.pt and"
        assert written in " ".join(done.stdout.split())
    assert len(list((tmp_path / "new").iterdir())) == 10


def test_documented_flags_reach_the_training(capsys, tmp_path) -> None:
    flags = {
        "episodes": 2,
        "gamma": 0.9,
        "epsilon_start": 0.8,
        "epsilon_min": 0.2,
        "epsilon_decay": 0.9,
        "batch_size": 128,
        "max_replay_states": 50,
    }
    given = [
        x for name, value in flags.items() for x in (f"--{name.replace('_', '-')}", str(value))
    ]
    given += ["--hidden-size", "20", "--lr", "0.002", "--log-every", "1", "--device", "cpu"]
    given += ["--pair", "B", "--seed-b", "7", "--eval-episodes", "1"]
    code, out, err = run(capsys, *given, "--output-dir", str(tmp_path))
    assert (code, err) == (0, "")
    assert "parent_A" not in out
    assert "(50 states)" in out
    record = json.loads((tmp_path / "parent_B.pt.json").read_text(encoding="utf-8"))
    expected = flags | {"hidden": 20, "learning_rate": 0.002}
    assert record["config"] | expected == record["config"]
    assert record["seed"] == 7
    assert record["architecture"]["hidden_size"] == 20


def test_flags_of_a_dqn_are_accepted_with_a_note(capsys, tmp_path) -> None:
    code, _, err = run(
        capsys, *SMALL, "--pair", "A", "--tau", "0.005", "--memory-size", "10000",
        "--output-dir", str(tmp_path),
    )  # fmt: skip
    assert code == 0
    assert err.splitlines() == [
        "note: --tau changes nothing: PQN has no target network",
        "note: --memory-size changes nothing: PQN learns from what it plays and has no replay "
        "memory",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "StageError: --device: expected cpu, not 'cuda'"),
        (["--episodes", "0"], "'--episodes': 0 is not in the range x>=1"),
        (["--lr", "0"], "'--lr': 0.0 is not in the range x>0"),
        (["--lr", "nan"], "'--lr': nan is not a finite number"),
        (["--gamma", "1.1"], "'--gamma': 1.1 is not in the range 0<=x<=1"),
        (["--tau", "2"], "'--tau': 2.0 is not in the range 0<=x<=1"),
        (["--pair", "C"], "'--pair': 'C' is not one of 'A', 'B', 'both'"),
        (["--seed-a", "-1"], "'--seed-a': -1 is not a whole number from 0"),
        (["--max-replay-states", "0"], "--max-replay-states: expected a positive number"),
        (["--epsilon-min", "1", "--epsilon-start", "0.5"], "--epsilon-min: expected at most"),
    ],
)
def test_what_is_out_of_range_is_told_in_one_sentence(capsys, arguments, message) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err


def test_a_prefix_renames_the_flags_of_the_learning_alone() -> None:
    @click.command()
    @parent_options("train-")
    def command(parents: object) -> None: ...

    names = {option for parameter in command.params for option in parameter.opts}
    # Source: the flags of AgentFarm's run_dual_teacher_cartpole.py.
    learning = {"episodes", "lr", "gamma", "epsilon-start", "epsilon-min", "epsilon-decay", "tau"}
    others = {"seed-a", "seed-b", "hidden-size", "log-every", "device", "max-replay-states"}
    expected = {f"--train-{name}" for name in learning | {"memory", "batch"}}
    assert names == expected | {f"--{name}" for name in others}
