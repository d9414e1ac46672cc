"""The table of recipes: what each of them has come to, written after every generation."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from engine.errors import RunDirectoryError
from populations.leaderboard_columns import Cell, read_cell, write_cell
from populations.plans import Align
from populations.regular_files import lines_of, only_regular


@dataclass(frozen=True)
class RecipeRow:
    """One recipe and its children so far; controls are nobody's.

    Attributes:
        recipe: Its number, in the order of the configuration; lists are expanded with the operator
            slowest and the fine-tuning fastest.
        operator: Name of the operator.
        operator_params: Its arguments.
        align: How parents are aligned.
        finetune: Name of the fine-tuning preset.
        rescale: Whether hidden units get the parents' statistics.
        weight: Its share of the weight in the configuration.
        births: Number of children, whatever became of them.
        ok: How many of them were scored.
        mean_improvement: Mean of their fitness minus that of the better parent; None without any.
        best_improvement: The highest of these.
        mean_reward: Mean reward, see ``strategies.bandit.rewards``; None without children that
            count.
        alpha: First parameter of the bandit's posterior; None without a bandit.
        beta: Second parameter.
        expected_reward: Mean of the posterior, ``alpha / (alpha + beta)``.
        share: How likely the recipe is drawn for a child of the coming generation.
    """

    recipe: int
    operator: str
    operator_params: dict[str, Any]
    align: Align
    finetune: str
    rescale: bool
    weight: float
    births: int
    ok: int
    mean_improvement: float | None
    best_improvement: float | None
    mean_reward: float | None
    alpha: float | None
    beta: float | None
    expected_reward: float | None
    share: float


NAMES = tuple(field.name for field in fields(RecipeRow))
_CELLS: dict[str, Cell] = {
    "recipe": "int",
    "operator": "text",
    "operator_params": "json",
    "align": "text",
    "finetune": "text",
    "rescale": "int",
    "births": "int",
    "ok": "int",
}
"""What columns hold that do not hold a number with a point."""
MAY_BE_EMPTY = (
    *("mean_improvement", "best_improvement", "mean_reward", "alpha", "beta", "expected_reward"),
)


def table_bytes(rows: Sequence[RecipeRow]) -> bytes:
    """Return the table as CSV, its cells written as those of a leaderboard."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(NAMES)
    writer.writerows(
        [write_cell(getattr(row, name), _CELLS.get(name, "float")) for name in NAMES]
        for row in rows
    )
    return text.getvalue().encode()


def read_table(path: Path) -> list[RecipeRow]:
    """Read what :func:`table_bytes` wrote; without a file there is no recipe.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    try:
        with open(path, encoding="utf-8", newline="", opener=only_regular) as file:
            reader = csv.DictReader(lines_of(file))
            rows = [
                RecipeRow(**{name: _value(name, row[name]) for name in NAMES}) for row in reader
            ]
        _check(rows)
    except FileNotFoundError:
        return []  # a run that has not come to its students yet, or of an earlier version
    except (KeyError, OSError, RecursionError, TypeError, ValueError, csv.Error) as error:
        raise RunDirectoryError(
            f"{path} is damaged; delete it, and 'cultivar resume {path.parent}' writes it again"
        ) from error
    return rows


def _check(rows: Sequence[RecipeRow]) -> None:
    """Refuse what is missing or no number, as in a table that somebody else has made."""
    for row in rows:
        for name in NAMES:
            value = getattr(row, name)
            if value is None and name not in MAY_BE_EMPTY:
                raise ValueError(f"{name} is missing")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
        if not isinstance(row.operator_params, dict):
            raise TypeError(f"operator_params is {row.operator_params!r:.40}")


def _value(name: str, cell: str) -> Any:
    kind = _CELLS.get(name, "float")
    value = read_cell(cell, kind)
    if kind == "float":
        return value if cell else None
    if name == "operator_params":
        return json.loads(value)
    return bool(value) if name == "rescale" else value
