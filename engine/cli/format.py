"""Tables as text: full precision for programs, fitted to the terminal for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.formatting import decimals_for, format_number, rounded
from populations.leaderboard_columns import column_type

KEEP_ALWAYS = 100

_GAP = 2  # spaces between two columns of a table


@dataclass(frozen=True)
class TextColumn:
    """One column of a table for people.

    Attributes:
        header: What stands above it.
        cells: Its cells, one line each.
        is_number: Whether it is aligned to the right.
        keep: Columns with the lowest value are left out first where the terminal is narrow; those
            with ``KEEP_ALWAYS`` never are.
        least: Width down to which it may be cut instead; none is cut before it is left out.
    """

    header: str
    cells: Sequence[str]
    is_number: bool = False
    keep: int = 0
    least: int | None = None

    @property
    def width(self) -> int:
        """Characters that its widest cell takes."""
        return max(Text(cell).cell_len for cell in (self.header, *self.cells))


def to_csv(frame: pd.DataFrame) -> str:
    """Write a table as CSV in full precision; it can be loaded again if it has all columns."""
    return frame.to_csv(index=False, lineterminator="\n")


def to_json(frame: pd.DataFrame) -> str:
    """Write a table as a JSON list of objects; a missing or infinite number is null."""
    records = [
        {str(name): _plain(str(name), value) for name, value in record.items()}
        for record in frame.to_dict("records")
    ]
    return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(frame: pd.DataFrame) -> str:
    """Write a table as GitHub Markdown in full precision."""
    rows = [
        [_exact(value).replace("\\", "\\\\").replace("|", "\\|") for value in row]
        for row in frame.itertuples(index=False)
    ]
    rules = ["---:" if is_number(frame[name]) else "---" for name in frame.columns]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in ([*frame.columns], rules, *rows))


def text_column(
    frame: pd.DataFrame, name: str, header: str = "", keep: int = KEEP_ALWAYS
) -> TextColumn:
    """Return a column with its numbers rounded alike, and nothing for what is missing."""
    series = frame[name]
    if not is_number(series):
        cells = ["" if pd.isna(value) else _readable(name, str(value)) for value in series]
        return TextColumn(header or name, cells, keep=keep)
    if series.dtype.kind == "f":
        decimals = decimals_for(series)
        cells = ["" if pd.isna(value) else format_number(value, decimals) for value in series]
    else:
        cells = ["" if pd.isna(value) else f"{value:,}" for value in series]
    return TextColumn(header or name, cells, is_number=True, keep=keep)


def print_columns(console: Console, columns: Sequence[TextColumn]) -> None:
    """Print columns side by side, leaving out the least important ones where it is narrow.

    What is not a terminal gets all columns in full width, since somebody may search in it.
    """
    shown = list(columns)
    if console.is_terminal:
        while _least_width(shown) > console.width and min(c.keep for c in shown) < KEEP_ALWAYS:
            shown.remove(min(reversed(shown), key=lambda column: column.keep))
    else:
        console.width = _total_width(shown)
    excess = max(0, _total_width(shown) - console.width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in shown:
        table.add_column(
            Text(column.header),
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            max_width=None if column.least is None else max(column.least, column.width - excess),
        )
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def is_number(series: pd.Series[Any]) -> bool:
    """Tell whether a column holds numbers."""
    return pd.api.types.is_numeric_dtype(series.dtype)


def _total_width(columns: Iterable[TextColumn]) -> int:
    return sum(column.width + _GAP for column in columns) - _GAP


def _least_width(columns: Sequence[TextColumn]) -> int:
    spare = (column.width - column.least for column in columns if column.least is not None)
    return _total_width(columns) - sum(max(0, width) for width in spare)


def _readable(name: str, cell: str) -> str:
    """Write a list of ids without its brackets and quotes, and arguments without all digits."""
    value = _decoded(name, cell)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    if isinstance(value, dict | list):
        return json.dumps(rounded(value), separators=(",", ":"), ensure_ascii=False)
    return cell


def _plain(name: str, value: Any) -> Any:
    if pd.isna(value) or (isinstance(value, float) and math.isinf(value)):
        return None
    return _decoded(name, value) if isinstance(value, str) else value


def _decoded(name: str, cell: str) -> Any:
    if column_type(name) != "json":
        return cell
    try:
        return json.loads(cell)
    # Somebody edited the file; what is there is still worth showing.
    except (RecursionError, ValueError):
        return cell


def _exact(value: Any) -> str:
    return "" if pd.isna(value) else repr(value) if isinstance(value, float) else str(value)
