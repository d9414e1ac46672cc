"""Labelled facts and columns of numbers, where a missing one is a dash."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.cli.format import KEEP_ALWAYS, TextColumn
from engine.formatting import decimals_for, format_number


def print_facts(console: Console, facts: Sequence[tuple[str, str]]) -> None:
    """Print labels with what is to be said; on a terminal long texts are wrapped beside them."""
    width = max(len(label) for label, _ in facts)
    if not console.is_terminal:
        for label, text in facts:
            click.echo(f"{label:<{width}}  {text}")
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=width, style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in facts:
        table.add_row(Text(label), Text(text))
    console.print(table)


def counts(header: str, values: Sequence[int | None], keep: int = KEEP_ALWAYS) -> TextColumn:
    """Return a column of whole numbers."""
    cells = ["-" if value is None else f"{value:,}" for value in values]
    return TextColumn(header, cells, is_number=True, keep=keep)


def numbers(
    header: str,
    values: Sequence[float | None],
    decimals: int | None = None,
    sign: str = "",
    keep: int = KEEP_ALWAYS,
) -> TextColumn:
    """Return a column of numbers with equally many digits behind the point."""
    if decimals is None:
        decimals = decimals_for(value for value in values if value is not None)
    cells = ["-" if value is None else f"{value:{sign}.{decimals}f}" for value in values]
    return TextColumn(header, cells, is_number=True, keep=keep)


def with_error(mean: float | None, error: float | None) -> str:
    """Return a mean with its standard error."""
    decimals = decimals_for([mean]) if mean is not None else None
    return f"{format_number(mean, decimals)} ± {format_number(error, decimals)}"
