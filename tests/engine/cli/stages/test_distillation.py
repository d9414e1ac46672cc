from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.cli import main
from engine.learning.checkpoints import save_network
from engine.stages.networks import initial_weights, teacher_spec

SMALL = ("--parent-hidden", "20", "--n-states", "300", "--epochs", "2")
SCRIPTS = Path(__file__).parents[4] / "scripts"


def run(capsys, *arguments: str) -> tuple[object, str, str]:
    """Return exit code, output and errors of a command."""
    with pytest.raises(SystemExit) as exited:
        main.main(arguments)
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def students(tmp_path_factory) -> Path:
    """Return a folder that ``distill`` has filled."""
    directory = tmp_path_factory.mktemp("students")
    with pytest.raises(SystemExit) as exited:
        main.main(["distill", *SMALL, "--epochs", "15", "--output-dir", str(directory)])
    assert exited.value.code == 0
    return directory


def test_distill_says_what_it_did(capsys, tmp_path) -> None:
    code, out, err = run(capsys, "distill", *SMALL, "--output-dir", str(tmp_path / "new"))
    assert (code, err) == (0, "")
    assert "states: synthetic, 300 to train" in out
    for label in "AB":
        assert f"parent_{label} -> student_{label}: 764 -> 548 parameters" in out
        assert f"wrote {tmp_path / 'new' / f'student_{label}.pt'}" in out


def test_documented_flags_reach_the_training(capsys, tmp_path) -> None:
    flags = {
        "temperature": 4.0,
        "temp_decay": 0.9,
        "alpha": 0.2,
        "learning_rate": 5e-4,
        "epochs": 2,
        "batch_size": 64,
        "val_fraction": 0.2,
        "seed": 1,
    }
    given = [
        x for name, value in flags.items() for x in (f"--{name.replace('_', '-')}", str(value))
    ]
    given += ["--max-grad-norm", "0", "--normalise-q", "--calibration", "value", "--pair", "A"]
    code, _, _ = run(capsys, "distill", *SMALL, *given, "--output-dir", str(tmp_path))
    assert code == 0
    config = json.loads((tmp_path / "student_A.pt.json").read_text())["config"]
    assert config == {
        **flags,
        "max_grad_norm": None,
        "loss_fn": "kl",
        "normalise_q": True,
        "calibration": "value",
        "final_temperature": pytest.approx(3.6),
    }
    assert not (tmp_path / "student_B.pt").exists()


def test_both_names_of_the_learning_rate_are_one(capsys, tmp_path) -> None:
    for flag in ("--lr", "--learning-rate"):
        given = (flag, "0.002", "--pair", "B", "--output-dir", str(tmp_path / flag))
        assert run(capsys, "distill", *SMALL, *given)[0] == 0
    one, other = (
        (tmp_path / flag / "student_B.pt").read_bytes() for flag in ("--lr", "--learning-rate")
    )
    assert one == other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--temperature", "0"), "'--temperature': 0.0 is not in the range x>0"),
        (("--alpha", "1.5"), "'--alpha': 1.5 is not in the range"),
        (("--temperature", "nan"), "'--temperature': nan is not a finite number"),
        (("--heldout-fraction", "1"), "'--heldout-fraction': 1.0 is not in the range"),
        (("--val-fraction", "1"), "'--val-fraction': 1.0 is not in the range 0<=x<1"),
        (("--lr", "-1"), "'--lr' / '--learning-rate': -1.0 is not in the range"),
        (("--epochs", "0"), "'--epochs'"),
        (("--loss-fn", "huber"), "'huber' is not one of"),
        (("--parent-a-ckpt", "none.pt"), "none.pt"),
        (("--states-file", "none.npy"), "none.npy: expected a .npy file"),
        (("--n-states", "1"), "--n-states: expected at least 2 states, not 1"),
        (("--env", "CartPole-v99"), "Did you mean"),
        (("--env", "CartPole-v1"), "CartPole-v1 has 4 inputs and 2 actions, but parent_A has 8"),
        (("--seed", str(2**40)), "seed must be from 0 to 4294967295"),
    ],
)
def test_distill_refuses_bad_input_in_one_sentence(capsys, tmp_path, arguments, message) -> None:
    code, _, err = run(capsys, "distill", *SMALL, "--output-dir", str(tmp_path), *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("student*"))


def test_states_that_are_all_equal_cannot_be_trained_on(capsys, tmp_path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((100, 8), np.float32))
    given = ("--states-file", str(tmp_path / "rows.npy"), "--output-dir", str(tmp_path / "out"))
    code, _, err = run(capsys, "distill", *SMALL, *given)
    assert code == 2
    assert "rows.npy: expected at least 2 different states" in err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((0, 8), np.float32), "expected at least 64 states, not 0"),
        (np.zeros((1, 8), np.float32), "expected at least 64 states, not 1"),
        (np.zeros((100, 5), np.float32), "not (100, 5)"),
        (np.full((100, 8), np.nan, np.float32), "100 rows hold NaN"),
    ],
)
@pytest.mark.parametrize("command", ["distill", "validate-distillation"])
def test_states_that_cannot_be_used_are_named(
    capsys, tmp_path, students, rows, message, command
) -> None:
    np.save(tmp_path / "rows.npy", rows)
    given = {
        "distill": [*SMALL, "--output-dir", str(tmp_path / "out")],
        "validate-distillation": ["--checkpoint-dir", str(students)],
    }[command]
    code, _, err = run(capsys, command, *given, "--states-file", str(tmp_path / "rows.npy"))
    assert code == 2
    assert "rows.npy: " in err
    assert message in err


def test_compare_prints_and_writes_the_documented_table(capsys, tmp_path) -> None:
    sizes = ("--n-states", "200", "--epochs", "2", "--parent-hidden", "32")
    path = tmp_path / "new" / "modes.json"
    code, out, err = run(capsys, "compare-distillation-modes", *sizes, "--json-out", str(path))
    assert (code, err) == (0, "")
    report = json.loads(path.read_text())
    assert report["seed_base"] == 42
    assert report["hyperparams"]["n_states"] == 200
    lines = out.splitlines()
    for line, run_, (mode, alpha) in zip(
        lines[1:4],
        report["runs"],
        [("hard_only", "0.0"), ("blended", "0.7"), ("soft_only", "1.0")],
        strict=True,
    ):
        cells = line.split()
        assert cells[:2] == [mode, alpha]
        assert cells[2] == f"{run_['final_action_agreement']:.2%}"
        assert cells[3] == f"{run_['final_mean_prob_similarity']:.4f}"
        assert cells[5] == f"{run_['heldout_action_agreement']:.2%}"
    first = path.read_bytes()
    run(capsys, "compare-distillation-modes", *sizes, "--json-out", str(path))
    assert path.read_bytes() == first


def test_validation_follows_distillation_without_further_flags(capsys, tmp_path, students) -> None:
    where = ("--checkpoint-dir", str(students), "--report-dir", str(tmp_path))
    code, out, err = run(capsys, "validate-distillation", *where, "--min-action-agreement", "0.3")
    assert (code, err) == (0, "")
    assert "student A: passed" in out
    assert "student B: passed" in out
    assert f"wrote {tmp_path / 'distillation_validation_summary.md'}" in out
    for label in "AB":
        report = json.loads((tmp_path / f"student_{label}_validation.json").read_text())
        assert report["passed"] is True
        assert report["states"]["held_out"] is True
        assert report["allow_unsafe_unpickle"] is False


def test_a_missed_threshold_exits_with_1_unless_only_reported(capsys, tmp_path, students) -> None:
    where = ("--checkpoint-dir", str(students), "--report-dir", str(tmp_path), "--pair", "B")
    strict = ("--min-action-agreement", "1.0")
    code, out, _ = run(capsys, "validate-distillation", *where, *strict)
    assert code == 1
    assert "student B: did not pass" in out
    assert "action_agreement is 0." in out
    assert "below 1" in out
    code, _, _ = run(capsys, "validate-distillation", *where, *strict, "--report-only")
    assert code == 0
    report = json.loads((tmp_path / "student_B_validation.json").read_text())
    assert (report["passed"], report["report_only"]) == (False, True)
    assert not (tmp_path / "student_A_validation.json").exists()


def test_fewer_states_than_asked_for_are_told(capsys, tmp_path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(200, 8)))
    given = ("--states-file", str(tmp_path / "rows.npy"), "--output-dir", str(tmp_path / "out"))
    _, out, _ = run(capsys, "distill", *SMALL, *given, "--n-states", "900")
    assert "rows.npy, 168 to train of 900 asked for, 32 held out" in out
    _, out, _ = run(capsys, "distill", *SMALL, *given, "--n-states", "100")
    assert "rows.npy, 100 to train, 32 held out" in out


def test_a_network_from_elsewhere_without_an_environment_gets_a_hint(capsys, tmp_path) -> None:
    spec = teacher_spec(4, 2, 20)
    save_network(tmp_path / "own.pt", spec, initial_weights(spec, 0))
    own = ("distill", "--parent-a-ckpt", str(tmp_path / "own.pt"), "--pair", "A", *SMALL[2:])
    code, out, _ = run(capsys, *own, "--output-dir", str(tmp_path / "out"))
    assert code == 0
    assert "no environment is known, so states are drawn at random" in out
    assert "give --env" in out
    _, out, _ = run(capsys, *own, "--env", "CartPole-v1", "--output-dir", str(tmp_path / "out"))
    assert "give --env" not in out
    _, out, _ = run(capsys, "distill", *SMALL, "--output-dir", str(tmp_path / "random"))
    assert "give --env" not in out


@pytest.mark.parametrize("command", ["distill", "qat", "finetune", "validate-distillation"])
def test_help_shows_ranges_that_exist(capsys, command) -> None:
    _, out, _ = run(capsys, command, "--help")
    assert "None]" not in " ".join(out.split())
    assert command == "validate-distillation" or "x>0" in out


def test_use_of_training_states_is_told(capsys, tmp_path, students) -> None:
    where = ("--checkpoint-dir", str(students), "--report-dir", str(tmp_path), "--pair", "A")
    _, out, _ = run(capsys, "validate-distillation", *where, "--use-training-states")
    assert "on 300 training states (training states of student_A)" in out
    assert "A network was trained on these rows" in (
        tmp_path / "distillation_validation_A.md"
    ).read_text(encoding="utf-8")


def test_flags_of_rollouts_play_the_environment(capsys, tmp_path) -> None:
    sizes = ("--input-dim", "4", "--output-dim", "2", "--env", "CartPole-v1", "--pair", "A")
    code, out, _ = run(capsys, "distill", *SMALL, *sizes, "--output-dir", str(tmp_path))
    assert code == 0
    assert "states: CartPole-v1: played by parent_A" in out
    where = ("--checkpoint-dir", str(tmp_path), "--report-dir", str(tmp_path), "--pair", "A")
    rollout = ("--sim-rollout", "--sim-rollout-episodes", "4", "--sim-rollout-max-steps", "6")
    seed = ("--rollout-base-seed", "9", "--max-relative-return-drop", "0")
    _, out, _ = run(capsys, "validate-distillation", *where, *rollout, *seed, "--report-only")
    assert "  returns over 4 held-out episodes of CartPole-v1\n" in out
    for name in ("parent", "student"):
        assert f"    {name:<20}     6.0  6.0 to 6.0\n" in out
    rollout_report = json.loads((tmp_path / "student_A_validation.json").read_text())["rollout"]
    assert rollout_report == {
        "parent_mean_return": 6,
        "student_mean_return": 6,
        "relative_drop": 0,
        "max_relative_return_drop": 0,
        "n_episodes": 4,
        "max_steps": 6,
        "base_seed": 9,
        "passed": True,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--min-action-agreement", "2"), "--min-action-agreement must be a number from 0 to 1"),
        (("--max-mse", "-1"), "--max-mse must be a number of at least 0"),
        (("--max-kl-divergence", "nan"), "nan is not a finite number"),
        (("--k-values", "1,x"), "--k-values must be like 1,2,3, not '1,x'"),
        (("--k-values", "0"), "--k-values must be whole numbers of at least 1"),
        (("--latency-repeats", "-1"), "'--latency-repeats'"),
        (("--max-relative-return-drop", "-0.1"), "'--max-relative-return-drop'"),
        (("--max-relative-return-drop", "0.1"), "episodes are asked for"),
        (("--rollout-episodes", "5"), "give --env, for example --env CartPole-v1"),
        (("--sim-rollout",), "episodes are asked for"),
        (("--sim-rollout", "--episodes", "0"), "give --episodes a number of at least 1"),
        (("--sim-env-factory", "os:getcwd"), "pass --env module:Name-v0"),
        (("--device", "cuda"), "--device must be cpu"),
        (("--input-dim", "4"), "--input-dim is 4, but parent_A"),
        (("--env", "CartPole-v1"), "CartPole-v1 has 4 inputs"),
        (("--max-latency-ratio", "2", "--latency-repeats", "0"), "--max-latency-ratio needs"),
        (("--parent-a-ckpt", "none.pt"), "none.pt"),
    ],
)
def test_validation_refuses_bad_input(capsys, tmp_path, students, arguments, message) -> None:
    where = ("--checkpoint-dir", str(students), "--report-dir", str(tmp_path / "new"))
    code, _, err = run(capsys, "validate-distillation", *where, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_validation_of_nothing_names_the_flag(capsys, tmp_path) -> None:
    code, _, err = run(capsys, "validate-distillation")
    assert code == 2
    assert "give --checkpoint-dir" in err
    code, _, err = run(capsys, "validate-distillation", "--checkpoint-dir", str(tmp_path))
    assert code == 2
    assert "student_A.pt: expected a distilled student" in err


def test_scripts_are_the_commands(tmp_path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            SCRIPTS / "run_distillation.py",
            *SMALL,
            *("--pair", "A", "--output-dir", tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "student_A.pt").exists()


def test_loading_the_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys, engine.cli.stages.distillation, engine.cli.stages.distillation_validation\n"
        "print(sorted({'torch', 'pandas', 'scipy', 'ray', 'gymnasium'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
