from __future__ import annotations

import errno
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from engine.cli import main
from engine.errors import RunInterruptedError
from populations.errors import CultivarError, JournalError


@pytest.fixture
def exit_with(monkeypatch, capsys):
    """Return a function that runs the command while it raises, and gives exit code and errors."""

    def run(error: BaseException) -> tuple[object, str]:
        def fail(**_: object) -> None:
            raise error

        monkeypatch.setattr(main.cli, "main", fail)
        with pytest.raises(SystemExit) as exited:
            main.main()
        return exited.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CultivarError("mend it"), (2, "CultivarError: mend it\n")),
        (JournalError("line 3"), (2, "JournalError: line 3\n")),
        (RunInterruptedError("stopped; go on with it"), (130, "stopped; go on with it\n")),
        (KeyboardInterrupt(), (130, "stopped at once; what was finished is recorded\n")),
        (click.Abort(), (130, "stopped at once; what was finished is recorded\n")),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_an_exit_code(exit_with, error, expected) -> None:
    assert exit_with(error) == expected


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ELOOP, errno.EINVAL])
def test_a_path_that_cannot_be_is_one_line(exit_with, number) -> None:
    error = OSError(number, os.strerror(number), "out/x")
    told = f"{os.strerror(number)} (out/x); what was finished before is recorded\n"
    assert exit_with(error) == (2, told)


def failure_of(function) -> BaseException:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        function()
    return caught.value


def test_too_little_memory_is_one_line(exit_with) -> None:
    for error in (
        MemoryError(),
        failure_of(lambda: np.empty((10**6, 10**9))),
        failure_of(lambda: torch.empty((10**6, 10**9))),
    ):
        code, told = exit_with(error)
        assert code == 2
        assert told.startswith("there is not enough memory for this; ask for less")
        assert told.count("\n") == 1


def test_other_runtime_errors_come_with_their_traceback(monkeypatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(main.cli, "main", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        main.main()


def test_sigterm_stops_like_ctrl_c(monkeypatch, capsys) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def terminated(**_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("went on")

    monkeypatch.setattr(main.cli, "main", terminated)
    with pytest.raises(SystemExit) as exited:
        main.main()
    assert exited.value.code == 130
    assert capsys.readouterr().err == "stopped at once; what was finished is recorded\n"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["distill", "--n-states", "999999999999"],
        ["validate-distillation", "--n-states", "999999999999"],
        ["distill", "--hidden-size", "200000"],
        ["finetune", "--hidden-size", "20000000"],
    ],
)
def test_absurd_sizes_are_one_sentence(capsys, tmp_path, monkeypatch, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exited:
        main.main(arguments)
    assert exited.value.code == 2
    error = capsys.readouterr().err
    assert "ask for less" in error or "is more than 10000000, the most there may be" in error


def test_a_defect_of_ours_comes_with_its_traceback(monkeypatch) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(main.cli, "main", fail)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        main.main()


def test_every_command_can_be_loaded_and_says_what_it_does(monkeypatch, capsys) -> None:
    assert main.COMMANDS
    monkeypatch.setattr(sys, "argv", ["cultivar", "--help"])
    with pytest.raises(SystemExit) as exited:
        main.main()
    assert exited.value.code == 0
    listed = capsys.readouterr().out
    for name in main.COMMANDS:
        command = main.cli.get_command(click.Context(main.cli), name)
        assert command is not None
        assert command.help
        first_line = command.help.partition("\n")[0].replace("``", "'")
        assert f"{name} {first_line}" in " ".join(listed.split())


def test_help_has_two_groups_and_imports_no_command() -> None:
    code = (
        "import sys\n"
        "from engine.cli import main\n"
        "try:\n"
        "    main.main(['--help'])\n"
        "except SystemExit as exited:\n"
        "    assert exited.code == 0\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'scipy', 'ray'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, imported = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1]
    assert imported == "[]"
    breeding, stages = listed.index("Breeding:"), listed.index("Pipeline stages:")
    rows = {line.split()[0]: i for i, line in enumerate(listed) if line.startswith("  ")}
    assert breeding < rows["evolve"] < rows["settings"] < stages < rows["benchmark-crossover"]


def test_a_command_returns_its_exit_code(monkeypatch) -> None:
    monkeypatch.setattr(main.cli, "main", lambda **_: 1)
    with pytest.raises(SystemExit) as exited:
        main.main()
    assert exited.value.code == 1


SCRIPTS = Path(__file__).parents[3] / "scripts"
ENTRY_POINTS = {
    "run_distillation": "distill",
    "validate_distillation": "validate-distillation",
    "compare_distillation_modes": "compare-distillation-modes",
    "quantize_distilled": "quantize",
    "qat_distilled": "qat",
    "validate_quantized": "validate-quantized",
    "benchmark_crossover": "benchmark-crossover",
    "finetune_child": "finetune",
    "validate_recombination": "validate-recombination",
    "run_crossover_search": "crossover-search",
    "run_multi_gen_search": "multi-gen-search",
    "train_cartpole_parents": "train-cartpole-parents",
    "run_cartpole_recombination": "cartpole-recombination",
    "run_dual_teacher_cartpole": "dual-teacher-cartpole",
}


@pytest.mark.parametrize("script", ENTRY_POINTS)
def test_a_documented_script_is_its_command(monkeypatch, script) -> None:
    called = []
    monkeypatch.setattr(main, "run_command", called.append)
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    assert called == [ENTRY_POINTS[script]]


def test_a_command_gets_the_arguments_of_its_script(monkeypatch) -> None:
    given = []
    monkeypatch.setattr(main, "main", given.append)
    monkeypatch.setattr(sys, "argv", ["scripts/quantize_distilled.py", "--pair", "A"])
    main.run_command("quantize")
    assert given == [["quantize", "--pair", "A"]]


def test_reading_a_leaderboard_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys\n"
        "from engine.cli import main\n"
        "import click\n"
        "main.cli.get_command(click.Context(main.cli), 'leaderboard')\n"
        "print(sorted({'torch', 'ray', 'gymnasium'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_file_where_a_folder_is_needed_is_named(exit_with, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below"):
        with pytest.raises(OSError, match="file") as raised:
            path.mkdir(parents=True)
        code, told = exit_with(raised.value)
        assert code == 2
        assert told == f"{file} is a file, but a folder is needed there; give another path\n"


def test_a_mistyped_command_is_told_which_one_is_meant(capsys) -> None:
    for typed, meant in {"distil": "distill", "leaderbord": "leaderboard"}.items():
        with pytest.raises(SystemExit) as exited:
            main.main([typed])
        assert exited.value.code == 2
        assert f"No such command '{typed}'. Did you mean '{meant}'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.main(["xyzzy"])
    assert "Did you mean" not in capsys.readouterr().err
