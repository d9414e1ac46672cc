from pathlib import Path

import click
import pytest

from engine.cli import main
from engine.cli.stages.dual_teacher import cartpole_recombination, dual_teacher_cartpole


def words(text: str) -> list[str]:
    return text.split()


# Source: Appendix A of the reading of AgentFarm, dumped from argparse.
TRAINING = words(
    """
    parent-a-ckpt parent-b-ckpt force-train train-episodes train-lr train-gamma
    train-epsilon-start train-epsilon-min train-epsilon-decay train-tau train-memory train-batch
    seed-a seed-b log-every device max-replay-states hidden-size
    """
)
CHILD = words(
    """
    crossover-mode crossover-alpha crossover-seed finetune-epochs finetune-lr finetune-batch
    finetune-seed states-file min-action-agreement max-kl-divergence max-mse
    min-cosine-similarity report-only output-dir
    """
)
FLAGS = {
    "dual-teacher-cartpole": words(
        """
        distill-epochs distill-temperature distill-alpha distill-lr distill-batch distill-seed
        n-states states-seed allow-unsafe-unpickle finetune-temperature
        finetune-teacher-weight-a finetune-val-fraction
        """
    ),
    "cartpole-recombination": ["include-parent-baseline"],
}
COMMANDS = {
    "dual-teacher-cartpole": dual_teacher_cartpole,
    "cartpole-recombination": cartpole_recombination,
}


def run(capsys, *arguments: str) -> tuple[object, str, str]:
    """Return exit code, output and errors of a command."""
    with pytest.raises(SystemExit) as exited:
        main.main(list(arguments))
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


def test_every_documented_flag_is_there() -> None:
    for name, flags in FLAGS.items():
        expected = {f"--{flag}" for flag in (*TRAINING, *CHILD, *flags)}
        assert len(expected) == {"dual-teacher-cartpole": 44, "cartpole-recombination": 33}[name]
        there = {flag for option in COMMANDS[name].params for flag in option.opts}
        assert expected - there == set()


def test_the_documented_defaults_are_kept() -> None:
    # Source: Appendix A; what differs there is told in the document of the pipeline.
    expected = {
        "dual-teacher-cartpole": {
            "--train-episodes": 200,
            "--seed-a": 42,
            "--seed-b": 99,
            "--hidden-size": 64,
            "--distill-epochs": 15,
            "--distill-temperature": 3.0,
            "--distill-lr": 1e-3,
            "--distill-batch": 64,
            "--n-states": 2000,
            "--states-seed": 42,
            "--crossover-mode": "weighted",
            "--crossover-alpha": 0.5,
            "--finetune-epochs": 10,
            "--finetune-lr": 5e-4,
            "--finetune-batch": 64,
            "--finetune-temperature": 3.0,
            "--finetune-teacher-weight-a": 0.5,
            "--finetune-val-fraction": 0.1,
            "--finetune-seed": 0,
            "--min-action-agreement": 0.5,
            "--max-kl-divergence": 2.0,
            "--max-mse": 10.0,
            "--min-cosine-similarity": 0.5,
            "--min-distill-agreement": 0.8,
            "--max-distill-kl": 1.0,
        },
        "cartpole-recombination": {
            "--finetune-epochs": 10,
            "--finetune-lr": 1e-3,
            "--finetune-batch": 64,
            "--finetune-seed": 0,
            "--min-action-agreement": 0.5,
            "--max-mse": 10.0,
        },
    }
    for name, flags in expected.items():
        defaults = {
            option.opts[0]: option.default
            for option in COMMANDS[name].params
            if isinstance(option, click.Option)
        }
        assert {flag: defaults[flag] for flag in flags} == flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--finetune-teacher-weight-a", "1.5"], "1.5 is not in the range 0<=x<=1"),
        (["--finetune-val-fraction", "1"], "1.0 is not in the range 0<=x<1"),
        (["--n-states", "1"], "1 is not in the range x>=2"),
        (["--max-mse", "nan"], "nan is not a finite number"),
        (["--min-action-agreement", "2"], "--min-action-agreement must be a number from 0 to 1"),
        (["--distill-temperature", "0"], "0.0 is not in the range x>0"),
        (["--device", "cuda"], "--device: expected cpu, not 'cuda'"),
        (["--states-file", "none.npy"], "none.npy"),
        (["--parent-a-ckpt", "none.pt"], "none.pt: expected the file of a trained Q-network"),
        (["--crossover-mode", "mean"], "'mean' is not one of"),
    ],
)
def test_bad_input_ends_with_2_and_one_sentence(
    arguments, message, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "dual-teacher-cartpole", *arguments, "--output-dir", "run")
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not Path("run").exists()
