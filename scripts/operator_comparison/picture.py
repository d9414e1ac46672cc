"""The picture of the comparison: returns of each operator before and after fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from operator_comparison.report import COLUMNS
from operator_comparison.tasks import CONTROLS, REGIMES

STYLES = {
    ("none", "before"): {"color": "#e76f51", "marker": "o"},
    ("activations", "before"): {"color": "#2a9d8f", "marker": "o"},
    ("none", "after"): {"color": "#e9b8a9", "marker": "s"},
    ("activations", "after"): {"color": "#9fd1cb", "marker": "s"},
}
SHOWN = {"fresh": "random network"}
LABELS = {"none": "not aligned", "activations": "aligned"}
OFFSETS = dict(zip(STYLES, (0.27, 0.09, -0.09, -0.27), strict=True))


def draw(summary: pd.DataFrame, file: Path) -> None:
    """Draw a panel per task and regime: a dot with its interval per operator and version."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(summary["task"].unique())
    names = _order(summary)
    figure, axes = plt.subplots(
        len(tasks),
        len(REGIMES),
        figsize=(11, (0.34 * len(names) + 1.1) * len(tasks)),
        sharey=True,
        sharex="row",
        squeeze=False,
        layout="constrained",
    )
    for line, task in zip(axes, tasks, strict=True):
        for panel, regime in zip(line, REGIMES, strict=True):
            mine = summary[(summary["task"] == task) & (summary["regime"] == regime)]
            _panel(panel, mine, names)
            panel.set_title(f"{task}, {_regime(regime)}", fontsize=10, loc="left")
        line[0].set_yticks(range(len(names)), [SHOWN.get(n, n) for n in names], fontsize=8)
    axes[-1][0].set_xlabel("mean return")
    axes[-1][-1].set_xlabel("mean return")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _panel(panel: Any, rows: pd.DataFrame, names: list[str]) -> None:
    for (align, version), style in STYLES.items():
        some = rows[(rows["align"] == align) & (rows["version"] == version)]
        some = some[some["operator"].isin(names) & (some["children"] > 0)]
        places = [names.index(name) + OFFSETS[align, version] for name in some["operator"]]
        spread = [some["mean"] - some["low"], some["high"] - some["mean"]]
        label = f"{version} fine-tuning, {LABELS[align]}"
        panel.errorbar(
            some["mean"], places, xerr=spread, linestyle="", markersize=4, linewidth=1,
            label=label, **style,
        )  # fmt: skip
    for operator, version, line, label in (
        ("parent", "before", "-", "better parent"),
        ("fresh", "after", "--", "random + fine-tune"),
    ):
        found = rows[(rows["operator"] == operator) & (rows["version"] == version)]
        if not found.empty:
            panel.axvline(
                found["mean"].iloc[0], color="#444444", linewidth=1, linestyle=line, label=label
            )
    panel.set_ylim(-0.7, len(names) - 0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", linewidth=0.3)


def _order(summary: pd.DataFrame) -> list[str]:
    """Return operators from the bottom up: by their mean over tasks, and the controls on top."""
    regime, align = COLUMNS["shared"]
    there = summary[
        (summary["regime"] == regime)
        & (summary["align"] == align)
        & (summary["version"] == "before")
        & ~summary["operator"].isin([*CONTROLS, "parent", "ensemble"])
    ]
    ranks = there.assign(rank=there.groupby("task")["mean"].rank())
    order = ranks.groupby("operator")["rank"].mean().sort_values()
    return [*order.index, *CONTROLS]


def _regime(regime: str) -> str:
    return "one ancestor" if regime == "shared" else "independent students"
