"""The tables of the comparison, in Markdown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tables import section

from operator_comparison.intervals import SHARES
from operator_comparison.overall import overall
from operator_comparison.tasks import CONTROLS

BEGIN = "<!-- operators: written by make compare-operators -->"
END = "<!-- operators: end -->"
COLUMNS = {
    "independent": ("independent", "none"),
    "independent, aligned": ("independent", "activations"),
    "shared": ("shared", "none"),
    "shared, aligned": ("shared", "activations"),
}
"""Regime and alignment of each column of returns."""
MAIN = ("independent, aligned", "shared")
"""The columns that are compared with the controls: what ``align: auto`` does in each regime."""
NAMES = {
    "parent": "*better parent*",
    "ensemble": "*Q-ensemble of both parents*",
    "clone": "*clone*",
    "fresh": "*random network*",
}
TITLES = {"before": "before fine-tuning", "after": "after fine-tuning"}
HEADS = {
    "better_parent": "before, minus better parent",
    "random": "after, minus random + fine-tune",
    "clone": "after, minus clone + fine-tune",
}


def markdown(rows: pd.DataFrame, summary: pd.DataFrame) -> str:
    """Return all tables: all operators together, then each of them, task by task."""
    parts = [overall(rows, summary)]
    for task in summary["task"].unique():
        mine = summary[summary["task"] == task]
        operators = _operators(mine)
        parts += [_returns(task, mine, operators, version) for version in TITLES]
        parts += [_differences(task, mine, operators), _shares(task, mine, operators)]
    failed = summary[summary["failed"] > 0]
    if len(failed):
        names = ", ".join(f"`{name}`" for name in sorted(set(failed["operator"])))
        parts.append(f"{int(failed['failed'].sum())} networks could not be made, by {names}.\n")
    return "\n".join(parts)


def write_page(page: Path, text: str) -> None:
    """Put tables between the markers of a page, or into a new page of nothing else."""
    old = page.read_text(encoding="utf-8") if page.is_file() else f"{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def _operators(rows: pd.DataFrame) -> list[str]:
    """Return operators by their return before fine-tuning, best first, without the controls."""
    regime, align = COLUMNS[MAIN[1]]
    there = rows[
        (rows["regime"] == regime) & (rows["align"] == align) & (rows["version"] == "before")
    ]
    ours = there[~there["operator"].isin([*CONTROLS, "parent", "ensemble"])]
    return list(ours.sort_values("mean", ascending=False)["operator"])


def _returns(task: str, rows: pd.DataFrame, operators: list[str], version: str) -> str:
    lines = []
    controls = ["parent", "ensemble", *CONTROLS[::-1]]
    for operator in [*controls, *operators]:
        # What a pair does by itself is the same before and after.
        shown = "before" if operator in ("parent", "ensemble") else version
        cells = []
        for regime, align in COLUMNS.values():
            # A control has one parent or none: nothing is aligned.
            found = _find(rows, operator, regime, "none" if operator in controls else align, shown)
            cells.append("" if found is None else _interval(found, ""))
        lines.append((_name(operator, version), *cells))
    header = ("", *COLUMNS)
    return section(f"{task}: mean return {TITLES[version]}", "", header, lines)


def _differences(task: str, rows: pd.DataFrame, operators: list[str]) -> str:
    lines = []
    for operator in [*CONTROLS[::-1], *operators]:
        cells = []
        for name in HEADS:
            version = "before" if name == "better_parent" else "after"
            for column in MAIN:
                regime, align = COLUMNS[column]
                align = "none" if operator in CONTROLS else align
                found = _find(rows, operator, regime, align, version)
                cells.append("" if found is None else _interval(found, f"vs_{name}_", signed=True))
        lines.append((_name(operator, "before"), *cells))
    header = ("", *(f"{head}: {column}" for head in HEADS.values() for column in MAIN))
    return section(f"{task}: differences of the same pair", "", header, lines)


def _shares(task: str, rows: pd.DataFrame, operators: list[str]) -> str:
    lines = []
    for operator in [*CONTROLS[::-1], *operators]:
        cells = []
        for column in MAIN:
            regime, align = COLUMNS[column]
            align = "none" if operator in CONTROLS else align
            versions = [_find(rows, operator, regime, align, version) for version in TITLES]
            there = [cell for cell in versions if cell is not None]
            cells += [" → ".join(f"{100 * cell[share]:.0f}" for cell in there) for share in SHARES]
        lines.append((_name(operator, "before"), *cells))
    heads = ("agrees with parent", "with best teacher", "above better parent")
    header = ("", *(f"{head}: {column}" for column in MAIN for head in heads))
    return section(f"{task}: shares in %, before → after fine-tuning", "", header, lines)


def _find(
    rows: pd.DataFrame, operator: str, regime: str, align: str, version: str
) -> pd.Series | None:
    """Return the summary of one cell, or None where nothing was made."""
    found = rows[
        (rows["operator"] == operator)
        & (rows["regime"] == regime)
        & (rows["align"] == align)
        & (rows["version"] == version)
    ]
    return None if found.empty or found["children"].iloc[0] == 0 else found.iloc[0]


def _interval(cell: pd.Series, prefix: str, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (cell[f"{prefix}{end}"] for end in ("mean", "low", "high"))
    return f"{mean:{sign}.0f} ({low:{sign}.0f} to {high:{sign}.0f})"


def _name(operator: str, version: str) -> str:
    name = NAMES.get(operator, f"`{operator}`")
    tuned = version == "after" and operator in CONTROLS
    return f"{name[:-1]} + fine-tune*" if tuned else name
