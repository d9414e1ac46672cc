"""Options of the training of CartPole parents, which several commands have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from engine.cli.stages.options import Decorator, F
from engine.cli.stages.value_types import COUNT, SEED, SHARE, Number
from engine.stages.cartpole.parent_settings import ParentSettings

if TYPE_CHECKING:
    from engine.stages.cartpole.asked_training import AskedTraining

# What a DQN trainer needs and PQN has not: by option, why a number given for it changes nothing.
WITHOUT_MEANING = {
    "tau": "PQN has no target network",
    "memory": "PQN learns from what it plays and has no replay memory",
}
POSITIVE = Number(min=0, min_open=True)


def parent_options(prefix: str = "") -> Decorator:
    """Add the options of :class:`ParentSettings`, and pass an instance as ``parents``.

    Args:
        prefix: What the names of the options of the learning begin with, such as ``train-``. With
            a prefix, the names are ``--train-memory`` and ``--train-batch``; without, they are
            ``--memory-size`` and ``--batch-size``.
    """

    def flag(name: str, size: str = "") -> str:
        return f"--{prefix}{name}" if prefix else f"--{name}{size}"

    options = [
        _option("--seed-a", "seed_a", SEED, "Seed of parent A; it depends on no other."),
        _option("--seed-b", "seed_b", SEED, "Seed of parent B; it depends on no other."),
        _option("--hidden-size", "hidden", COUNT, "Units in each of the two hidden layers."),
        _option(
            flag("episodes"),
            "episodes",
            COUNT,
            "Budget of each parent, in episodes of 500 environment steps.",
        ),
        _option(flag("lr"), "learning_rate", POSITIVE, "Of RAdam; falls linearly to zero."),
        _option(flag("gamma"), "gamma", SHARE, "Discount."),
        _option(flag("epsilon-start"), "epsilon_start", SHARE, "Share of random actions at first."),
        _option(flag("epsilon-min"), "epsilon_min", SHARE, "Share that it falls to."),
        _option(
            flag("epsilon-decay"),
            "epsilon_decay",
            SHARE,
            "Factor on it per time step, in which 32 environments take a step each.",
        ),
        _option(
            flag("batch", "-size"),
            "batch_size",
            COUNT,
            "Most states per gradient step, of 1,024 per rollout.",
        ),
        _ignored(flag("tau"), "tau", SHARE),
        _ignored(flag("memory", "-size"), "memory", COUNT),
        _option(
            "--max-replay-states",
            "max_replay_states",
            click.INT,
            "Latest visited states to write per parent; a negative number for all.",
        ),
        _option(
            "--log-every", "log_every", COUNT, "Episodes of the budget between lines of progress."
        ),
        _option("--device", "device", click.STRING, "Only cpu."),
    ]

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def with_parents(*args: Any, **kwargs: Any) -> Any:
            values = {name: kwargs.pop(name) for name in NAMES}
            for name, reason in WITHOUT_MEANING.items():
                if kwargs.pop(name) is not None:
                    given = flag(name, "-size" if name == "memory" else "")
                    click.echo(f"note: {given} changes nothing: {reason}", err=True)
            return function(*args, parents=ParentSettings(**values), **kwargs)

        decorated: Callable[..., Any] = with_parents
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[return-value]  # called as F is

    return decorate


NAMES = (
    "seed_a",
    "seed_b",
    "hidden",
    "episodes",
    "learning_rate",
    "gamma",
    "epsilon_start",
    "epsilon_min",
    "epsilon_decay",
    "batch_size",
    "max_replay_states",
    "log_every",
    "device",
)


def asked_training() -> AskedTraining:
    """Return the flags of the training of the running command, and which the user gave."""
    from engine.stages.cartpole.asked_training import AskedTraining  # imports torch

    context = click.get_current_context()
    flags = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in NAMES
    }
    given = [
        name
        for name in flags
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]
    return AskedTraining(flags, given)


def _option(flag: str, argument: str, kind: click.ParamType[Any], help: str) -> Decorator:
    """Return an option with the default of the settings."""
    default = getattr(ParentSettings, argument)
    return click.option(flag, argument, type=kind, default=default, show_default=True, help=help)


def _ignored(flag: str, argument: str, kind: click.ParamType[Any]) -> Decorator:
    return click.option(
        flag, argument, type=kind, help=f"Changes nothing: {WITHOUT_MEANING[argument]}."
    )
