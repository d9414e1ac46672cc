"""What the cells of a leaderboard are called where they are mappings."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

NAMED = ("mutation", "finetune")
"""Columns whose cells have a name; they hold numbers, too, which may differ in every row."""


def short_names(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Return a column by name: that of the mutation, and for ``finetune`` that of the preset.

    Args:
        frame: A leaderboard.
        column: One of its columns; any other is returned as it is.
    """
    if column == "finetune":
        return frame["preset"]
    if column == "mutation":
        return frame[column].map(_name, na_action="ignore").astype("string")
    return frame[column]


def _name(cell: str) -> str:
    try:
        return str(json.loads(cell)["name"])
    except (KeyError, RecursionError, TypeError, ValueError):  # somebody edited the file
        return cell
