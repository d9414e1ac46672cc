"""The ``cultivar`` command.

Exit codes: 0 done; 1 a validator did not pass; 2 something that you can mend, told in one sentence;
75 no cluster to work on at the moment, which may mend itself; 130 stopped by Ctrl-C, go on with
``cultivar resume``. Anything else is a defect of cultivar and comes with a traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

# Before NumPy and torch are imported: their threads would fight over the cores with the workers,
# and the number of threads may change the bytes.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import click  # noqa: E402  # threads are set first

from engine.errors import ClusterUnavailableError, RunInterruptedError  # noqa: E402  # likewise
from engine.exit_codes import INTERRUPTED, TEMPORARY, USER_ERROR  # noqa: E402  # likewise
from engine.unread import though_unread  # noqa: E402  # likewise
from populations.errors import CultivarError  # noqa: E402  # likewise

# A full or read-only disk, a quota, a limit on the size of files, a missing permission, too many
# open files; a file where a folder is needed, or the other way round.
DISK_TROUBLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ELOOP,
    errno.EINVAL,
)
TORCH_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""In what torch says, as a RuntimeError, where memory is refused to it."""
GARBAGE_AFTER = 50_000
"""New objects between two looks for garbage: Python's 700 cost a short command about 0.2 s, mostly
while torch is imported, all of whose objects stay."""

COMMANDS = {
    "evolve": "engine.cli.run",
    "resume": "engine.cli.run",
    "leaderboard": "engine.cli.leaderboard",
    "status": "engine.cli.inspect",
    "show": "engine.cli.inspect",
    "presets": "engine.cli.settings",
    "settings": "engine.cli.settings",
    "operators": "engine.cli.operators",
    "doctor": "engine.cli.doctor",
    "distill": "engine.cli.stages.distillation",
    "compare-distillation-modes": "engine.cli.stages.distillation",
    "validate-distillation": "engine.cli.stages.distillation_validation",
    "quantize": "engine.cli.stages.quantization",
    "qat": "engine.cli.stages.quantization",
    "validate-quantized": "engine.cli.stages.quantized_validation",
    "benchmark-crossover": "engine.cli.stages.recombination",
    "finetune": "engine.cli.stages.finetuning",
    "validate-recombination": "engine.cli.stages.recombination_validation",
    "crossover-search": "engine.cli.stages.search",
    "multi-gen-search": "engine.cli.stages.multi_generation",
    "train-cartpole-parents": "engine.cli.stages.cartpole",
    "cartpole-recombination": "engine.cli.stages.dual_teacher",
    "dual-teacher-cartpole": "engine.cli.stages.dual_teacher",
}
"""The module of each command, in the order in which they are used.

A command is the function of its name, with ``_`` for ``-``; the first line of its docstring is what
``cultivar --help`` says of it.
"""
STAGES = "engine.cli.stages."


class LazyGroup(click.Group):
    """Imports a command when it is asked for: ``cultivar leaderboard`` needs no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are used."""
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments begin with, or say which one is meant."""
        name = args[0]
        close = difflib.get_close_matches(name, COMMANDS, 1)
        if close and name not in COMMANDS:
            ctx.fail(f"No such command '{name}'. Did you mean '{close[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in two groups, without importing any of them."""
        rows: dict[str, list[tuple[str, str]]] = {"Breeding": [], "Pipeline stages": []}
        for name, module in COMMANDS.items():
            group = "Pipeline stages" if module.startswith(STAGES) else "Breeding"
            rows[group].append((name, _first_line(module, _function(name))))
        for group, listed in rows.items():
            if listed:
                with formatter.section(group):
                    formatter.write_dl(listed)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command by name, or None."""
        if name not in COMMANDS:
            return None
        import importlib

        command = getattr(importlib.import_module(COMMANDS[name]), _function(name))
        assert isinstance(command, click.Command), f"{name} is not a command"
        return command


def _function(command: str) -> str:
    return command.replace("-", "_")


def _first_line(module: str, function: str) -> str:
    """Return the first line of a function's docstring, read from the source of its module.

    Importing the modules instead would load pandas and torch for a page of help.
    """
    import ast
    import importlib.util

    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    assert spec.origin is not None, f"{module} has no source"
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0].replace("``", "'")
    raise AssertionError(f"{module} has no function {function}")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cultivar")
def cli() -> None:
    """Breed one tiny int8 Q-network out of several trained ones."""


def run_command(name: str) -> NoReturn:
    """Run one command with the arguments of this process and exit; for ``scripts/``."""
    main([name, *sys.argv[1:]])


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: What follows ``cultivar``; None takes the arguments of this process.
    """
    gc.set_threshold(GARBAGE_AFTER)
    try:
        with _sigterm_like_ctrl_c():
            code = cli.main(args=arguments, prog_name="cultivar", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        with though_unread(sys.stderr):
            error.show()
        sys.exit(USER_ERROR)
    except RunInterruptedError as error:
        _tell(error)
        sys.exit(INTERRUPTED)
    except CultivarError as error:
        _tell(f"{type(error).__name__}: {error}")
        sys.exit(TEMPORARY if isinstance(error, ClusterUnavailableError) else USER_ERROR)
    except (KeyboardInterrupt, click.Abort):
        _tell("stopped at once; what was finished is recorded")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe is gone, as in `cultivar leaderboard ... | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        _tell(_disk_trouble(error))
        sys.exit(USER_ERROR)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and TORCH_OUT_OF_MEMORY not in str(error):
            raise
        _tell(f"there is not enough memory for this; ask for less ({error})")
        sys.exit(USER_ERROR)


def _tell(text: object) -> None:
    with though_unread(sys.stderr):
        click.echo(text, err=True)


@contextlib.contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, for commands that do not handle it themselves."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _disk_trouble(error: OSError) -> str:
    """Return in a sentence what is wrong with which path."""
    named = error.filename2 or error.filename  # of a rename the target, which the user knows
    if named and error.errno in (errno.EEXIST, errno.ENOTDIR):
        path = Path(os.fsdecode(named))
        file = next((part for part in (path, *path.parents) if part.is_file()), None)
        if file is not None:
            return f"{file} is a file, but a folder is needed there; give another path"
    where = f" ({named})" if named else ""
    return f"{error.strerror}{where}; what was finished before is recorded"


if __name__ == "__main__":
    main()
