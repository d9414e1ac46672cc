"""Questions to a leaderboard: sort, best row of each genome, groups; filters beside it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from populations.errors import LeaderboardError
from populations.leaderboard_columns import VOLATILE, check_column
from populations.leaderboard_filter import filter_rows

__all__ = ["aggregate", "best_rows", "filter_rows", "sort_rows"]


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


def aggregate(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the number of rows and the fitness of each group, the best mean first.

    Args:
        frame: A leaderboard.
        by: Columns whose equal values make a group; a missing value makes one too.

    Returns:
        The columns of ``by``, ``count`` (rows), ``scored`` (rows with a fitness), and ``mean``,
        ``median`` and ``best`` of the fitness.

    Raises:
        LeaderboardError: A column is unknown, or none is named.
    """
    names = [check_column(frame.columns, name) for name in by]
    if not names:
        raise LeaderboardError("name at least one column to group by")
    groups = frame.groupby(names, dropna=False, sort=True)["fitness"].agg(
        count="size", scored="count", mean="mean", median="median", best="max"
    )
    return sort_rows(groups.reset_index(), ["-mean"])
