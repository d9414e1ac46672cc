from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from engine.cli.stages.many_values import ManyValues, spread


@click.command(cls=ManyValues)
@click.option("--shares", type=float, multiple=True)
@click.option("--name", default="")
def command(shares: tuple[float, ...], name: str) -> None:
    click.echo(f"{shares} {name}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--shares 0.3 0.5 --name x", "(0.3, 0.5) x"),
        ("--shares 0.3 --shares 0.5", "(0.3, 0.5) "),
        ("--name x --shares=0.3", "(0.3,) x"),
        ("", "() "),
    ],
)
def test_a_flag_takes_all_values_up_to_the_next_one(arguments, expected) -> None:
    done = CliRunner().invoke(command, arguments.split())
    assert done.output == f"{expected}\n"


def test_values_of_other_flags_are_left_alone() -> None:
    given = ["--name", "a", "b", "--shares", "1", "2", "3"]
    assert spread(given, {"--shares"}) == [
        *("--name", "a", "b"),
        *("--shares", "1", "--shares", "2", "--shares", "3"),
    ]


def test_a_flag_without_a_value_is_an_error() -> None:
    done = CliRunner().invoke(command, ["--shares"])
    assert done.exit_code == 2
    assert "requires an argument" in done.output
