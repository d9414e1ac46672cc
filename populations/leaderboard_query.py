"""Questions to a leaderboard: sort, best row of each genome, births, groups; filters beside it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from populations.errors import LeaderboardError
from populations.leaderboard_columns import VOLATILE, check_column
from populations.leaderboard_filter import filter_rows
from populations.leaderboard_names import short_names

__all__ = ["aggregate", "best_rows", "birth_rows", "filter_rows", "sort_rows"]

BORN = ("student", "child", "control")
"""Kinds that are rivals; an ancestor is none, and teachers and their ensemble are not born."""


def sort_rows(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the rows in order; missing values come last, equal rows keep their order.

    Args:
        frame: A leaderboard.
        keys: Column names, the most important first; a leading ``-`` puts the highest first.

    Raises:
        LeaderboardError: A column is unknown.
    """
    names = [check_column(frame.columns, key.removeprefix("-")) for key in keys]
    if not names:
        return frame
    ascending = [not key.startswith("-") for key in keys]
    return frame.sort_values(
        names, ascending=ascending, kind="stable", na_position="last", ignore_index=True
    )


def best_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per genome: the one with the most episodes, the latest of equals.

    What that row leaves empty (how an elite was born, its held-out fitness) is taken from the first
    of the genome's other rows that tells, and ``generation`` is that of its birth. Rows without a
    genome stay as they are.
    """
    named = frame["genome"].notna()
    ordered = frame[named].sort_values("episodes", kind="stable", na_position="first")
    best = ordered.drop_duplicates("genome", keep="last").set_index("genome")
    known = frame[named & (frame["status"] == "ok")].groupby("genome").first()
    for name in known.columns.difference(["status", "reason", *VOLATILE]):
        best[name] = best[name].fillna(known[name])
    births = frame[named & frame["child"].notna()].groupby("genome")["generation"].first()
    best["generation"] = births.reindex(best.index).fillna(best["generation"])
    index = ordered.drop_duplicates("genome", keep="last").index
    best = best.reset_index().set_index(index)[list(frame.columns)]
    return pd.concat([frame[~named], best]).sort_index().reset_index(drop=True)


def birth_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the births of students, children and controls, one row each.

    A genome that was born twice is there twice: a clone that nothing has changed has the id of its
    parent. What is left out are elites and candidates scored again, baselines, and the ancestor.
    """
    born = frame["child"].notna() & frame["kind"].isin(BORN)
    return frame[born].reset_index(drop=True)


def aggregate(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the number of rows and the fitness of each group, the best mean first.

    Rows of different kinds are never put together: an operator of that name may have made students,
    children and controls. A mutation is told by its name, a fine-tuning by that of its preset.

    Args:
        frame: A leaderboard.
        by: Columns whose equal values make a group; a missing value makes one too.

    Returns:
        ``kind`` and the columns of ``by``, ``count`` (rows), ``scored`` (rows with a fitness), and
        ``mean``, ``median`` and ``best`` of the fitness.

    Raises:
        LeaderboardError: A column is unknown, or none is named.
    """
    names = [check_column(frame.columns, name) for name in dict.fromkeys(by)]
    if not names:
        raise LeaderboardError("name at least one column to group by")
    if "kind" not in names:
        names.insert(0, "kind")
    keys = frame.assign(**{name: short_names(frame, name) for name in names})
    groups = keys.groupby(names, dropna=False, sort=True)["fitness"].agg(
        count="size", scored="count", mean="mean", median="median", best="max"
    )
    return sort_rows(groups.reset_index(), ["-mean"])
