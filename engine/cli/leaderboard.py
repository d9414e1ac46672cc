"""``cultivar leaderboard``: look at the rows of one run or several."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import pandas as pd
from rich.console import Console

from engine.cli.format import (
    KEEP_ALWAYS,
    TextColumn,
    print_columns,
    text_column,
    to_csv,
    to_json,
    to_markdown,
)
from engine.formatting import decimals_for, format_number
from engine.layout import GENERATIONS_SETTINGS, SEARCH_SETTINGS
from engine.run_table import load_runs
from populations.errors import LeaderboardError
from populations.leaderboard import load_leaderboard
from populations.leaderboard_columns import FIXED, check_column
from populations.leaderboard_query import (
    aggregate,
    best_rows,
    birth_rows,
    filter_rows,
    sort_rows,
)

TOP = 20
LONG = 30  # characters of a column that gives way to shorter ones
BEST_FIRST = ("-fitness", "-fitness_holdout", "size_bytes")
WRITERS = {"csv": to_csv, "json": to_json, "markdown": to_markdown}

EXAMPLES = f"""Columns: {", ".join(FIXED)}; agreement_NAME for each teacher.

\b
Examples:
  cultivar leaderboard runs/smoke-0 --top 5
  cultivar leaderboard runs/* --by run,operator
  cultivar leaderboard runs/smoke-0 --where "'3f9c1a7be210' in parents" --format csv
  cultivar leaderboard runs/smoke-0 --where "status == 'failed'" --columns operator,reason
"""


@click.command(epilog=EXAMPLES)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=click.IntRange(min=0),
    help=f"Show N rows; 0 shows all.  [default: {TOP} in a table, all otherwise]",
    metavar="N",
)
@click.option(
    "--where",
    metavar="EXPR",
    help='Keep rows such as "generation >= 3 and operator == \'unit\'" or "fitness is None".',
)
@click.option(
    "--sort", metavar="COLUMNS", help="Sort by comma-separated columns; -fitness is descending."
)
@click.option("--columns", metavar="COLUMNS", help="Show these comma-separated columns.")
@click.option(
    "--by",
    metavar="COLUMNS",
    help="Show count, mean, median and best fitness of births by kind and these columns; mutation "
    "and finetune stand for their names.",
)
@click.option(
    "--all-rows",
    is_flag=True,
    help="Keep every evaluation, not one row per genome; with --by, not births alone.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", *WRITERS]),
    default="table",
    show_default=True,
    help="The last three have all columns and digits.",
)
def leaderboard(
    runs: tuple[Path, ...],
    top: int | None,
    where: str | None,
    sort: str | None,
    columns: str | None,
    by: str | None,
    all_rows: bool,
    form: str,
) -> None:
    """Show the leaderboard of RUNS: run directories or leaderboard.csv files.

    A genome is shown once, with the fitness over most episodes. With --by every birth of a student,
    a child or a control counts, as in 'cultivar status': with the fitness that it was born with,
    and however often its genome was born. Left out are elites scored again, the ancestor, and
    baselines.

    A run may still be going on, or have failed. Of births in its unfinished generation only results
    are known, and their operator.
    """
    for run in runs:
        _refuse_search(run)
    frame, notes = load_runs(runs)
    for note in notes:
        click.echo(note, err=True)
    if where is not None:
        frame = filter_rows(frame, where)
    if not all_rows:
        frame = best_rows(frame) if by is None else birth_rows(frame)
    if by is not None:
        frame = aggregate(frame, _names(by))
    if sort is not None or by is None:
        frame = sort_rows(frame, BEST_FIRST if sort is None else _names(sort))
    names = None if columns is None else [check_column(frame.columns, n) for n in _names(columns)]
    if top is None:
        top = TOP if form == "table" else 0
    shown = frame.head(top) if top else frame
    if form != "table":
        click.echo(WRITERS[form](shown if names is None else shown[names]), nl=False)
    elif by is not None or names is not None:
        asked = [_whole(text_column(shown, name)) for name in names or shown.columns]
        if by is not None:
            asked = [replace(c, cells=[cell or "-" for cell in c.cells]) for c in asked]
        _print(asked, len(shown), len(frame))
    else:
        _print(_default_columns(shown, frame["run"].nunique() > 1), len(shown), len(frame))


def _refuse_search(run: Path) -> None:
    """Tell what to read of a crossover search, whose leaderboard has other columns."""
    folder = run.parent if run.suffix == ".csv" else run
    if (folder / GENERATIONS_SETTINGS).exists():
        kind, files = "search over generations", "multi_gen_summary.json and lineage.json"
    elif (folder / SEARCH_SETTINGS).exists():
        kind, files = "crossover search", "recommendation.txt and leaderboard.csv"
    else:
        return
    raise LeaderboardError(
        f"{folder} is a {kind}, not a run of cultivar evolve; read {files} in it"
    )


def print_finish(run: Path, top: int = TOP) -> None:
    """Print the best of those that played held-out episodes, which is what crowns a champion.

    All other rows of the run are passed over while they are read: there may be millions.

    Args:
        run: Run directory.
        top: Number of rows; 0 prints all. Where there are more, the command that shows them is
            printed as well.

    Raises:
        LeaderboardError: A leaderboard is missing or damaged.
    """
    judged = load_leaderboard([run], lambda row: row.get("fitness_holdout") != "")
    genomes = set(judged["genome"].dropna())
    rows = load_leaderboard(
        [run], lambda row: row.get("fitness_holdout") != "" or row.get("genome") in genomes
    )
    frame = sort_rows(best_rows(rows), ("-fitness_holdout", *BEST_FIRST))
    shown = frame.head(top) if top else frame
    print_columns(Console(highlight=False), _default_columns(shown, several_runs=False))
    if len(shown) < len(frame):
        click.echo(f"all rows: cultivar leaderboard {shlex.quote(str(run))} --top 0", err=True)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _print(columns: Sequence[TextColumn], n_shown: int, n_rows: int) -> None:
    if n_rows == 0:
        click.echo("no rows", err=True)
        return
    print_columns(Console(highlight=False), columns)
    if n_shown < n_rows:
        click.echo(f"{n_shown} of {n_rows} rows; --top {n_rows} shows all", err=True)


def _default_columns(frame: pd.DataFrame, several_runs: bool) -> list[TextColumn]:
    """Choose what a person wants to see first; the numbers say what to keep on a narrow screen."""
    ranks = [str(rank) for rank in range(1, len(frame) + 1)]
    columns = [
        TextColumn("#", ranks, is_number=True, keep=KEEP_ALWAYS),
        text_column(frame, "genome", keep=KEEP_ALWAYS),
        TextColumn("kind", _kinds(frame), keep=90),
        text_column(frame, "generation", "gen", keep=50),
        text_column(frame, "operator", keep=60),
        _with_error(frame, "fitness", "fitness", keep=KEEP_ALWAYS),
        _with_error(frame, "fitness_holdout", "held-out", keep=80),
        text_column(frame, "episodes", keep=20),
        text_column(frame, "size_bytes", "bytes", keep=70),
        text_column(frame, "parameters", keep=30),
        text_column(frame, "parents", keep=10),
    ]
    if several_runs:
        columns.insert(1, text_column(frame, "run", keep=95))
    if (frame["status"] != "ok").any():
        columns += [text_column(frame, "status", keep=94), text_column(frame, "reason", keep=93)]
        columns[-1] = replace(columns[-1], least=16)
    return [column for column in columns if any(column.cells)]


def _whole(column: TextColumn) -> TextColumn:
    """Let a column of long texts be cut where it is narrow, so that the others stay whole."""
    return replace(column, least=LONG) if column.width > LONG else column


def _kinds(frame: pd.DataFrame) -> list[str]:
    """Return the kinds, teachers with their number; somebody may have emptied a cell."""
    return [
        f"{kind} {child}" if kind == "teacher" and not pd.isna(child) else str(kind)
        for kind, child in zip(frame["kind"].fillna(""), frame["child"], strict=True)
    ]


def _with_error(frame: pd.DataFrame, name: str, header: str, keep: int) -> TextColumn:
    """Return a mean with its standard error; the points stand below each other."""
    decimals = decimals_for(frame[name])
    errors = [
        "" if pd.isna(error) else f"± {format_number(error, decimals)}"
        for error in frame[f"{name}_sem"]
    ]
    width = max(map(len, errors), default=0)
    gap = " " if width else ""
    cells = [
        "" if pd.isna(mean) else f"{format_number(mean, decimals)}{gap}{error:<{width}}"
        for mean, error in zip(frame[name], errors, strict=True)
    ]
    return TextColumn(header, cells, is_number=True, keep=keep)
