"""The recommendation names what is as good as the best, and what plays better than it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.stages.search.ranking import MANIFEST_COLUMNS, Entry
from engine.stages.search.recommendation import recommendation
from engine.stages.search.scores import Score

EPISODES = 8


def entry(name: str, share: float, returns: float | None = None) -> Entry:
    """Return a child that agrees in a share of 1,000 states and returns the same each time."""
    row = dict.fromkeys(MANIFEST_COLUMNS) | {
        "child_id": name,
        "crossover_mode": "weighted",
        "crossover_alpha": 0.5,
        "finetune_regime": "short",
        "finetune_epochs": 5,
        "finetune_lr": 1e-3,
        "child_vs_parent_a_agreement": 0.9,
        "child_vs_parent_b_agreement": share,
        "oracle_agreement": 1.0,
    }
    played = None if returns is None else Score(returns + np.arange(EPISODES) % 2)
    return Entry(row, Score((np.arange(1000) < 1000 * share).astype(float)), returns=played)


def test_children_within_noise_of_the_best_are_named() -> None:
    # a paired difference of k of 1,000 states has a standard error of about sqrt(k) / 1,000
    children = [entry("best", 0.8), entry("near", 0.799), entry("nearly", 0.798), entry("far", 0.5)]
    lines = recommendation(children, "min_agreement", 0.5, True).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Within noise of it"))
    assert lines[start].endswith("are 2 children, any of which would do:")
    assert [line.split()[0] for line in lines[start + 1 : start + 3]] == ["near", "nearly"]
    assert "far" not in lines[start + 3]


def test_of_all_children_within_noise_no_list_is_made() -> None:
    text = recommendation([entry("best", 0.8), entry("near", 0.799)], "min_agreement", 0.5, True)
    assert "is 1 child, all others: this search does not tell them apart." in text


@pytest.mark.parametrize(
    ("metric", "returns", "sentence"),
    [
        ("min_agreement", (455.0, 481.0), "it returns 455.5, and second, number 2 of the children"),
        ("min_agreement", (481.0, 455.0), "By return, too, it is the best: 481.5 over the 8 ep"),
        ("min_agreement", (None, None), None),
        ("return", (455.0, 481.0), None),
    ],
)
def test_a_child_that_plays_better_than_the_recommended_one_is_named(
    metric, returns, sentence
) -> None:
    children = [entry("first", 0.8, returns[0]), entry("second", 0.5, returns[1])]
    text = recommendation(children, metric, 0.5, True)
    if sentence is None:
        assert "y return" not in text
        assert "play best" not in text
    else:
        assert sentence in text
        assert "481.5" in text
