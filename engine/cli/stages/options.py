"""Options that several stages have, so that a flag means the same wherever it is.

Each function returns a decorator; its arguments are the defaults of one command.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from engine.cli.stages.value_types import COUNT, COUNT_OR_ZERO, FINITE, SEED
from engine.errors import StageError

F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """Adds options to a function, and returns it as what it was."""

    def __call__(self, function: F, /) -> F:
        """Add the options."""


FILE = click.Path(path_type=Path)
REPORT_ONLY = "report_only"


def pair_option(default: str = "both") -> Decorator:
    """Add ``--pair``: argument ``pair``; see :func:`labels`."""
    return click.option(
        "--pair",
        type=click.Choice(["A", "B", "both"]),
        default=default,
        show_default=True,
        help="Which of the two networks.",
    )


def labels(pair: str) -> tuple[str, ...]:
    """Return the networks that ``--pair`` stands for: ``A``, ``B``, or both in that order."""
    return ("A", "B") if pair == "both" else (pair,)


def size_options(
    n_inputs: int | None = 8, n_actions: int | None = 4, hidden: int | None = 64
) -> Decorator:
    """Add ``--input-dim``, ``--output-dim`` and ``--hidden-size`` (also ``--parent-hidden``).

    The arguments are ``n_inputs``, ``n_actions`` and ``hidden``.
    """
    return _all(
        _shown("--input-dim", "n_inputs", n_inputs, COUNT, "Numbers in one state."),
        _shown("--output-dim", "n_actions", n_actions, COUNT, "Number of actions."),
        click.option(
            "--parent-hidden",
            "--hidden-size",
            "hidden",
            type=COUNT,
            default=hidden,
            show_default=True,
            help="Units in each of the parents' two hidden layers.",
        ),
    )


def states_options(
    n_states: int | None = 1000,
    seed: int | None = 42,
    source: str = "normally distributed ones",
    help: str = "Number of states.",
) -> Decorator:
    """Add ``--states-file``, ``--n-states`` and ``--seed``."""
    return _all(
        click.option(
            "--states-file",
            type=FILE,
            help=f"Float32 rows, (N, inputs), as .npy; default: {source}.",
        ),
        _shown("--n-states", "n_states", n_states, COUNT, help),
        seed_option(seed),
    )


def seed_option(default: int | None = 42, help: str = "Seed of all that is drawn.") -> Decorator:
    """Add ``--seed``."""
    return _shown("--seed", "seed", default, SEED, help)


def training_states_option() -> Decorator:
    """Add ``--use-training-states``."""
    return click.option(
        "--use-training-states",
        is_flag=True,
        help="Evaluate on the rows that were trained on, not on held-out ones.",
    )


def episode_options(n_episodes: int = 100, environment: str | None = None) -> Decorator:
    """Add ``--env`` and ``--episodes``: arguments ``environment`` and ``n_episodes``."""
    return _all(
        click.option(
            "--env",
            "environment",
            default=environment,
            show_default=True,
            help="Environment to play; default: the one that the sidecars name.",
        ),
        _shown("--episodes", "n_episodes", n_episodes, COUNT, "Episodes that each network plays."),
    )


def report_options(directory: str) -> Decorator:
    """Add ``--report-dir`` and ``--report-only``."""
    return _all(
        click.option(
            "--report-dir",
            type=FILE,
            default=directory,
            show_default=True,
            help="Where the reports go.",
        ),
        click.option(
            "--report-only", is_flag=True, help="Exit with 0 even if a threshold is missed."
        ),
    )


def validator_options(report_directory: str) -> Decorator:
    """Add what all validators have: sizes, states, latency, unsafe files, reports."""
    return _all(
        size_options(None, None, None),
        states_options(
            source="those held out in training, or random ones",
            help="Most states to judge on, where no file is given.",
        ),
        training_states_option(),
        _shown("--latency-warmup", "latency_warmup", 5, COUNT_OR_ZERO, "Untimed forward passes."),
        _shown("--latency-repeats", "latency_repeats", 50, COUNT_OR_ZERO, "Timed ones; 0: none."),
        unsafe_option(),
        report_options(report_directory),
    )


def k_values_option() -> Decorator:
    """Add ``--k-values``: argument ``k_values``, a tuple of whole numbers."""
    return click.option(
        "--k-values",
        default="1,2,3",
        show_default=True,
        callback=lambda _context, _option, text: _whole_numbers(text),
        help="Values of k of the top-k agreements.",
    )


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise StageError(f"--k-values must be like 1,2,3, not {text!r}") from error


def unsafe_option() -> Decorator:
    """Add ``--allow-unsafe-unpickle``: argument ``allow_unsafe_unpickle``."""
    return click.option(
        "--allow-unsafe-unpickle",
        is_flag=True,
        help="Let .pt files run their code while they are loaded; for files you trust.",
    )


def threshold_options(thresholds: type[Any], **defaults: float | None) -> Decorator:
    """Add an option per limit of a dataclass, and pass an instance as ``thresholds``.

    ``min_action_agreement`` becomes ``--min-action-agreement``; what stands below the field in the
    source is the text of its option. A limit of None is not checked unless it is given. A field
    ``report_only`` is filled from the option of that name, see :func:`report_options`.

    Args:
        thresholds: The dataclass; all its fields have defaults. A ValueError of its constructor
            becomes a StageError.
        **defaults: What this command sets in place of the defaults of the dataclass.
    """
    fields = dataclasses.fields(thresholds)
    limits = {field.name: field.default for field in fields if field.name != REPORT_ONLY}
    is_recorded = len(limits) < len(fields)
    assert set(defaults) <= set(limits), f"not all of {thresholds.__name__}: {sorted(defaults)}"
    texts = _field_texts(thresholds)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def with_thresholds(*args: Any, **kwargs: Any) -> Any:
            values = {name: kwargs.pop(name) for name in limits}
            if is_recorded:
                values[REPORT_ONLY] = kwargs[REPORT_ONLY]
            try:
                built = thresholds(**values)
            except ValueError as error:
                raise StageError(str(error)) from error
            return function(*args, thresholds=built, **kwargs)

        options = [
            _shown(f"--{name.replace('_', '-')}", name, default, FINITE, texts.get(name))
            for name, default in (limits | defaults).items()
        ]
        return _all(*options)(with_thresholds)  # type: ignore[return-value]  # called as F is

    return decorate


def _field_texts(cls: type[Any]) -> dict[str, str]:
    """Return the docstring below each field in the source of a class."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(node.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def finish(passed: bool, report_only: bool = False) -> int:
    """Return the exit code of a validator: 1 if it did not pass and is to say so, else 0."""
    return 0 if passed or report_only else 1


def _shown(
    flag: str, argument: str, default: Any, kind: click.ParamType[Any], help: str | None
) -> Decorator:
    """Return an option whose default is part of its help."""
    return click.option(flag, argument, type=kind, default=default, show_default=True, help=help)


def _all(*options: Decorator) -> Decorator:
    """Return a decorator that adds options in the order in which they are to be listed."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
