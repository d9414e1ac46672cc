"""``cultivar operators``: list, show and check crossovers, mutations and selections."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from engine.errors import ConfigError
from engine.operator_list import KINDS, OperatorFacts, facts_of, find_operators, list_operators
from engine.strict_yaml import parse_yaml
from strategies.plugins import load_plugin_file
from strategies.registry import Registry

if TYPE_CHECKING:
    from strategies.testing import Outcome

FAILED = 1
USER_ERROR = 2

LIST_EPILOG = """\b
Examples:
  cultivar operators
  cultivar operators --kind mutation
  cultivar operators --plugin my_operators.py
  cultivar operators show ties
  cultivar operators check my_operators.py:MyCrossover --set share=0.3
"""
SHOW_EPILOG = """\b
Examples:
  cultivar operators show ties
  cultivar operators show my_operators.py:MyCrossover
"""
CHECK_EPILOG = """\b
Examples:
  cultivar operators check my_operators.py:MyCrossover
  cultivar operators check my_operators.py:MyCrossover --set share=0.3
  cultivar operators check my_operators.py
  cultivar operators check my_package.crossover:MyCrossover
  cultivar operators check weighted
"""

_kind = click.option("--kind", type=click.Choice(KINDS), help="Only operators of this kind.")
_plugins = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    help="Python file with operators of your own, which is executed; may be repeated.",
)


class OperatorsGroup(click.Group):
    """Says which command is meant where one is mistyped."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments begin with, or say which one is meant."""
        if args[0] not in self.commands:
            close = difflib.get_close_matches(args[0], self.commands, 1)
            guess = close[0] if close else "show"
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{guess}'?")
        return super().resolve_command(ctx, args)


@click.group(cls=OperatorsGroup, invoke_without_command=True, epilog=LIST_EPILOG)
@_kind
@_plugins
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known, as JSON.")
@click.pass_context
def operators(
    ctx: click.Context, kind: str | None, plugins: tuple[str, ...], as_json: bool
) -> None:
    """List the operators that runs can use, show one of them, or check your own.

    Without a command, every operator is listed with how many parents it takes (2+: or more, with
    the parameter n_parents), what it needs to know of them besides their weights, its parameters
    with their defaults, and what it does.
    """
    _load(plugins)
    if ctx.invoked_subcommand is not None:
        return
    found, problems = list_operators(kind)
    if as_json:
        _echo_json([_as_dict(one) for one in found])
    else:
        from engine.cli.operators_text import print_list

        print_list(Console(highlight=False), found)
    for problem in problems:
        click.echo(problem, err=True)
    ctx.exit(USER_ERROR if problems else 0)


@operators.command(epilog=SHOW_EPILOG, short_help="Show formula, parameters, needs and source.")
@click.argument("name")
@_kind
@_plugins
@click.option("--json", "as_json", is_flag=True, help="Print a list of what is known, as JSON.")
def show(name: str, kind: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """Show an operator: its formula, parameters, needs and source, and where it is.

    NAME is the name of an operator, FILE.py:Class, or module:Class.
    """
    _load(plugins)
    found = [facts_of(registry, cls) for registry, cls in find_operators(name, kind)]
    if as_json:
        _echo_json([_as_dict(one) for one in found])
        return
    from engine.cli.operators_text import print_page

    console = Console(highlight=False)
    for i, one in enumerate(found):
        if i:
            console.print()
        print_page(console, one)


@operators.command(epilog=CHECK_EPILOG, short_help="Check that an operator keeps its contract.")
@click.argument("target")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter, its value as YAML."
)
@_kind
@_plugins
@click.pass_context
def check(
    ctx: click.Context,
    target: str,
    settings: tuple[str, ...],
    kind: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Check that an operator keeps its contract, and say how to mend what it does not.

    TARGET is FILE.py:Class, FILE.py for all operators of a file, module:Class, or the name of an
    operator. The exit code is 0 if all checks passed, 1 if one failed, 2 for bad input.
    """
    _load(plugins)
    params = _params(settings)
    instances = [
        (registry, registry.construct(cls, _title(target, cls), params))
        for registry, cls in find_operators(target, kind)
    ]
    from engine.cli.operators_text import print_outcomes

    console = Console(highlight=False)
    failed = False
    for i, (registry, operator) in enumerate(instances):
        if i:
            console.print()
        outcomes = _examine(registry, operator)
        given = ", ".join(f"{name}={value}" for name, value in params.items())
        title = f"{registry.kind} {_title(target, type(operator))}"
        print_outcomes(console, f"{title}, {given}" if given else title, outcomes)
        failed |= any(outcome.failed for outcome in outcomes)
    ctx.exit(FAILED if failed else 0)


def _load(plugins: tuple[str, ...]) -> None:
    for plugin in plugins:
        load_plugin_file(plugin)


def _params(settings: tuple[str, ...]) -> dict[str, Any]:
    """Return parameters from ``KEY=VALUE``, the value as YAML."""
    params = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {setting}: expected a parameter such as share=0.3")
        params[name.strip()] = parse_yaml(text, setting)
    return params


def _examine(registry: Registry[Any], operator: Any) -> Sequence[Outcome]:
    """Run the checks of the operator's kind, and ask besides whether its name is free."""
    from strategies import testing

    examine: Mapping[str, Callable[[Any], Sequence[Outcome]]] = {
        "crossover": testing.examine_crossover,
        "mutation": testing.examine_mutation,
        "selection": testing.examine_selection,
    }
    outcomes = examine[registry.kind](operator)
    taken = registry.name_fault(type(operator))
    if taken is None:
        return outcomes
    problem, mend = taken.problem, taken.mend
    return [
        dataclasses.replace(each, problem=problem, mend=mend)
        if each.check == "name" and not each.failed
        else each
        for each in outcomes
    ]


def _title(target: str, cls: type[Any]) -> str:
    """Return the target with its class, which it may leave out."""
    return f"{target}:{cls.__name__}" if target.endswith(".py") else target


def _as_dict(one: OperatorFacts) -> dict[str, Any]:
    facts = dataclasses.asdict(one)
    facts["class"] = facts.pop("target")
    return facts


def _echo_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # Half of a surrogate pair, as from a badly decoded file name, can only be written escaped.
    click.echo(text.encode("utf-8", "backslashreplace").decode())
