from __future__ import annotations

import subprocess
import sys

import click
import pytest

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
        assert name in listed
        command = main.cli.get_command(click.Context(main.cli), name)
        assert command is not None
        assert command.help


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
