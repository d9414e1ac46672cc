"""The table of recipes as a person sees it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from engine.cli.recipe_text import print_recipes
from engine.recipe_table import RecipeRow

ROW = RecipeRow(
    *(0, "weighted", {"low": 0.1}, "auto", "default", False, 0.5, 30, 28),
    *(-2.5, 12.25, 0.75, None, None, None, 0.625),
)


def printed(
    draw: str, rows: list[RecipeRow], capsys: pytest.CaptureFixture[str], width: int = 0
) -> list[list[str]]:
    """Return the words of each line; a width makes it a terminal."""
    file = io.StringIO()
    console = Console(file=file, highlight=False, width=width or None, force_terminal=width > 0)
    print_recipes(console, draw, rows)
    out, err = capsys.readouterr()
    table = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    lines = (out + table + err).splitlines()
    assert all(len(line) <= width for line in table.splitlines() if width)
    return [line.split() for line in lines]


def rows(**changes: list[Any]) -> list[RecipeRow]:
    n = len(next(iter(changes.values())))
    return [
        replace(ROW, recipe=i, **{name: values[i] for name, values in changes.items()})
        for i in range(n)
    ]


def test_recipes_of_a_bandit_stand_with_the_most_likely_first(capsys) -> None:
    found = rows(
        align=["auto", "none", "auto"],
        finetune=["default", "default", "short"],
        expected_reward=[0.25, 0.875, 0.5],
        mean_improvement=[-2.5, 1.0, None],
        best_improvement=[12.25, 3.0, None],
        share=[0.125, 0.75, 0.125],
    )
    blank, title, header, *lines = printed("bandit", found, capsys)
    assert blank == []
    assert " ".join(title) == "3 recipes, drawn by a bandit"
    assert " ".join(header) == (
        "# operator align finetune births ok vs parent best gain reward chance"
    )
    assert lines == [
        ["1", "weighted", "none", "default", "30", "28", "+1.0", "+3.0", "0.88", "75%"],
        ["2", "weighted", "auto", "short", "30", "28", "-", "-", "0.50", "12%"],
        ["0", "weighted", "auto", "default", "30", "28", "-2.5", "+12.2", "0.25", "12%"],
    ]


def test_what_all_recipes_of_an_operator_share_is_left_out(capsys) -> None:
    found = rows(operator=["weighted", "unit"], align=["auto", "none"])
    _, _, header, *_ = printed("grid", found, capsys)
    assert header[:3] == ["#", "operator", "births"]


def test_params_and_rescaling_are_told_where_they_differ(capsys) -> None:
    found = rows(operator_params=[{"low": 0.1}, {"low": 0.5}], rescale=[False, True])
    _, title, header, first, second = printed("mix", found, capsys)
    assert title == ["2", "recipes,", "drawn", "by", "weight"]
    assert header[1:4] == ["operator", "params", "rescale"]
    assert (first[2:4], second[2:4]) == (["low=0.1", "no"], ["low=0.5", "yes"])


def test_a_mix_of_one_recipe_per_operator_has_no_table(capsys) -> None:
    assert printed("mix", rows(operator=["weighted", "unit"]), capsys) == []
    assert printed("bandit", [], capsys) == []


def test_a_grid_is_ranked_by_improvement_and_the_unknown_stands_last(capsys) -> None:
    gains = [-3.0, None, 0.0, 2.5]
    found = rows(operator=["a", "b", "c", "d"], mean_improvement=gains, mean_reward=gains)
    _, _, _, *lines = printed("grid", found, capsys)
    assert [line[1] for line in lines] == ["d", "c", "a", "b"]
    assert lines[-1][-1] == "-"  # without a chance, which is the same for all


def test_params_have_four_digits(capsys) -> None:
    found = rows(operator_params=[{"low": 1 / 3, "n_parents": 3}, {"low": 12345.6}])
    _, _, _, first, second = printed("mix", found, capsys)
    assert first[2:4] == ["low=0.3333", "n_parents=3"]
    assert second[2] == "low=12346"


@pytest.mark.parametrize("width", [80, 120])
def test_many_recipes_fit_a_terminal(capsys, width: int) -> None:
    found = rows(
        operator=["task_arithmetic"] * 30,
        align=["activations"] * 29 + ["none"],
        finetune=["default", *["thorough"] * 29],
        operator_params=[{"low": 0.1 * i, "high": 1.1, "n_parents": 3} for i in range(30)],
        mean_improvement=[i / 30 for i in range(30)],
    )
    _, _, header, first, *_, last = printed("grid", found, capsys, width)
    assert header[1:5] == ["operator", "params", "align", "finetune"]
    assert first[2].startswith("low=2.9")
    assert last == ["20", "of", "30", "recipes;", "recipes.csv", "has", "all"]
