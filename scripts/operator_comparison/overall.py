"""What holds for all operators together: what alignment does, and what nearness explains."""

from __future__ import annotations

import pandas as pd
from tables import section

from operator_comparison.intervals import Interval, bootstrap
from operator_comparison.tasks import CONTROLS, REGIMES

NOT_CROSSED = (*CONTROLS, "parent", "ensemble")


def overall(rows: pd.DataFrame, summary: pd.DataFrame) -> str:
    """Return a table in Markdown, a line per task and regime."""
    lines = []
    for task in rows["task"].unique():
        for regime in REGIMES:
            mine = rows[(rows["task"] == task) & (rows["regime"] == regime)]
            gains = [alignment_gain(mine, version) for version in ("before", "after")]
            means = summary[(summary["task"] == task) & (summary["regime"] == regime)]
            texts = [f"{gain.mean:+.0f} ({gain.low:+.0f} to {gain.high:+.0f})" for gain in gains]
            lines.append((f"{task}, {regime}", *texts, f"{nearness(means):.2f}"))
    header = (
        "",
        "aligned minus not aligned, before fine-tuning",
        "the same, after",
        "rank correlation of return with agreement with the parent, before",
    )
    return section("All operators together", "", header, lines)


def alignment_gain(rows: pd.DataFrame, version: str) -> Interval:
    """Return what alignment adds to the return of a child, on average over the operators.

    Args:
        rows: Children of one task and regime; a child counts where both alignments gave one.
        version: ``before`` or ``after`` fine-tuning.
    """
    crossed = rows[(rows["version"] == version) & ~rows["operator"].isin(NOT_CROSSED)]
    child = ["seed", "pair", "operator"]
    both = crossed.pivot(index=child, columns="align", values="mean_return").dropna()
    gain = (both["activations"] - both["none"]).groupby(["seed", "pair"]).mean()
    return bootstrap([group.to_numpy() for _, group in gain.groupby("seed")])


def nearness(summary: pd.DataFrame) -> float:
    """Return Spearman's correlation, over operators and alignments, of return and agreement.

    Args:
        summary: Means of one task and regime; those before fine-tuning are compared.
    """
    crossed = summary[(summary["version"] == "before") & ~summary["operator"].isin(NOT_CROSSED)]
    # Pearson's correlation of the ranks; pandas would import SciPy for the same number.
    return float(crossed["mean"].rank().corr(crossed["agreement_parent"].rank()))
