"""Means and 95 % intervals over seeds and the pairs within them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RESAMPLES = 4000
CELL = ["task", "regime", "operator", "align", "version"]
"""What one mean is about; its values are those of all seeds and pairs."""
UNIT = ["task", "regime", "seed", "pair"]
"""What a child and its controls have in common."""
REFERENCES = {
    "better_parent": ("parent", "before"),
    "clone": ("clone", "after"),
    "random": ("fresh", "after"),
}
"""What children are compared with: an operator without alignment, and its version."""
SHARES = ("agreement_parent", "agreement_teacher", "above_parent")
"""Columns of which the mean alone is told."""


@dataclass(frozen=True)
class Interval:
    """A mean with the 2.5 % and 97.5 % points of its bootstrap distribution."""

    mean: float
    low: float
    high: float


def bootstrap(groups: list[NDArray[np.float64]], resamples: int = RESAMPLES) -> Interval:
    """Return the mean over groups of each one's mean, and how sure one can be of it.

    The hierarchical bootstrap: groups are drawn with replacement, then values within each drawn
    group. With few groups it is coarse, and rather too narrow: five groups cannot tell of the
    groups that were not seen.

    Source: Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8.

    Args:
        groups: Values of each seed, one per pair; no group is empty.
        resamples: How many means are drawn; always the same ones for the same sizes.

    Raises:
        ValueError: There is no group, or an empty one.
    """
    if not groups or any(len(group) == 0 for group in groups):
        raise ValueError("expected at least one group, and a value in each")
    sizes = tuple(len(group) for group in groups)
    padded = np.zeros((len(groups), max(sizes)))
    for row, group in zip(padded, groups, strict=True):
        row[: len(group)] = group
    rows, columns, drawn = _draws(sizes, resamples)
    values = padded[rows, columns] * (np.arange(max(sizes)) < drawn)
    means = values.sum(axis=2, keepdims=True) / drawn
    low, high = np.quantile(means.mean(axis=(1, 2)), [0.025, 0.975])
    return Interval(float(np.mean([group.mean() for group in groups])), float(low), float(high))


@cache
def _draws(sizes: tuple[int, ...], resamples: int) -> tuple[NDArray[Any], ...]:
    """Return rows and columns of what is drawn, and how many of each row there are to be.

    Columns are ``(resamples, groups, largest size)``, the others ``(resamples, groups, 1)``.
    """
    rng = np.random.default_rng(0)
    rows = rng.integers(len(sizes), size=(resamples, len(sizes), 1))
    drawn = np.array(sizes)[rows]
    columns = (rng.random((resamples, len(sizes), max(sizes))) * drawn).astype(np.intp)
    return rows, columns, drawn


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per cell: mean return, paired differences to the controls, and agreements.

    Args:
        rows: The rows of all jobs; those without a network are left out of the means.

    Returns:
        ``CELL`` and ``children``, ``failed``; ``mean``, ``low``, ``high`` of the return, and the
        same of ``vs_better_parent``, ``vs_clone`` and ``vs_random`` (both fine-tuned), each the
        mean over seeds of child minus control of the same pair; mean agreements, and
        ``above_parent``, the share that returned more than the better parent.
    """
    rows = rows.copy()
    for name, (operator, version) in REFERENCES.items():
        chosen = rows[(rows["operator"] == operator) & (rows["version"] == version)]
        control = chosen.set_index(UNIT)["mean_return"].rename("control")
        joined = rows.join(control, on=UNIT)
        rows[f"vs_{name}"] = joined["mean_return"] - joined["control"]
    rows["above_parent"] = rows["vs_better_parent"] > 0
    summaries = []
    for cell, members in rows.groupby(CELL, sort=False):
        there = members[members["mean_return"].notna()]
        summary: dict[str, object] = dict(zip(CELL, cell, strict=True))
        summary |= {"children": len(there), "failed": len(members) - len(there)}
        for column, prefix in [
            ("mean_return", ""),
            *((f"vs_{name}", f"vs_{name}_") for name in REFERENCES),
        ]:
            groups = [group.to_numpy() for _, group in there.groupby("seed")[column]]
            interval = bootstrap(groups) if groups else Interval(*[float("nan")] * 3)
            summary |= {f"{prefix}{end}": getattr(interval, end) for end in ("mean", "low", "high")}
        for column in SHARES:
            summary[column] = there.groupby("seed")[column].mean().mean()
        summaries.append(summary)
    return pd.DataFrame(summaries)
