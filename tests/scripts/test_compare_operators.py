"""The comparison of operators: a quick study from end to end, and its statistics by hand."""

from __future__ import annotations

from pathlib import Path

import compare_operators
import numpy as np
import pandas as pd
import pytest
from operator_comparison.intervals import bootstrap, summarize
from operator_comparison.overall import alignment_gain, nearness
from operator_comparison.report import BEGIN, END, write_page
from operator_comparison.tasks import built_in, chosen, two_parent

from strategies.crossover import crossovers


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the quick study once, and return its folder."""
    folder = tmp_path_factory.mktemp("study")
    run(folder)
    return folder


def run(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["compare_operators.py", "--quick", "--output", str(folder)])
        compare_operators.main()


def children(study: Path) -> pd.DataFrame:
    return pd.read_csv(study / "CartPole-v1/seed-0/children.csv")


def some(rows: pd.DataFrame, operator: str, align: str, version: str) -> pd.DataFrame:
    """Return the rows of an operator, by regime and pair."""
    chosen = rows[
        (rows["operator"] == operator) & (rows["align"] == align) & (rows["version"] == version)
    ]
    return chosen.set_index(["regime", "pair"]).sort_index()


def test_every_operator_crosses_every_pair_before_and_after(study: Path) -> None:
    rows = children(study)
    n_pairs, n_regimes = 6, 2
    assert len(some(rows, "weighted", "none", "before")) == n_pairs * n_regimes
    crossed = rows[rows["operator"].isin(["weighted", "unit"])]
    # times two operators, two alignments, and two versions
    assert len(crossed) == n_pairs * n_regimes * 2 * 2 * 2
    assert rows["mean_return"].notna().all()


def test_a_clone_that_is_not_tuned_does_what_its_parent_does(study: Path) -> None:
    rows = children(study)
    clone, parent = (some(rows, name, "none", "before") for name in ("clone", "parent"))
    assert len(clone) == 12
    np.testing.assert_array_equal(clone["mean_return"], parent["mean_return"])
    np.testing.assert_array_equal(clone["agreement_teacher"], parent["agreement_teacher"])
    assert (clone["agreement_parent"] == 1).all()


def test_controls_are_in_the_tables(study: Path) -> None:
    page = (study / "operator-comparison.md").read_text()
    for name in ("better parent", "Q-ensemble of both parents", "clone + fine-tune"):
        assert f"*{name}*" in page
    assert "*random network + fine-tune*" in page
    assert "`weighted`" in page
    figures = pd.read_csv(study / "operator-comparison.csv")
    assert set(figures["operator"]) == {"weighted", "unit", "clone", "fresh", "parent", "ensemble"}


def test_what_played_does_not_play_again(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (study / "operator-comparison.md").read_bytes()
    monkeypatch.delattr("operator_comparison.scores.evaluate")
    run(study)
    assert "training" not in capsys.readouterr().out
    assert (study / "operator-comparison.md").read_bytes() == page


def test_built_in_operators_can_be_made_for_two_parents() -> None:
    names = built_in()
    assert {"weighted", "unit", "layer", "random"} <= set(names)
    assert names[-2:] == ("fresh", "clone")
    for name in names:
        assert two_parent(name).n_parents <= 3
        if "n_parents" in crossovers.create(name).params:
            assert two_parent(name).n_parents == 2


def test_controls_are_compared_whatever_is_chosen() -> None:
    assert chosen(["clone", "unit"]) == ("unit", "fresh", "clone")


def test_mean_is_that_of_the_means_of_groups() -> None:
    found = bootstrap([np.array([1.0, 2.0, 3.0]), np.array([10.0])])
    assert found.mean == 6.0


def test_values_that_do_not_differ_have_no_interval() -> None:
    found = bootstrap([np.full(6, 7.0), np.full(6, 7.0)])
    assert (found.low, found.high) == (7.0, 7.0)


@pytest.mark.parametrize("groups", [[[0.0], [1.0]], [[0.0, 1.0]]])
def test_intervals_reach_over_groups_and_over_values(groups: list[list[float]]) -> None:
    # Two values drawn twice: the mean is 0, 1/2 or 1 with probabilities 1/4, 1/2 and 1/4.
    found = bootstrap([np.array(group) for group in groups])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_interval_of_many_groups_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(1)
    groups = [rng.normal(size=1) for _ in range(400)]
    found = bootstrap(groups)
    half = 1.96 * np.std(groups) / np.sqrt(400)
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_a_short_group_counts_as_much_as_a_long_one() -> None:
    # A group of one value must never be padded: its mean is always 100, that of the other 0.
    found = bootstrap([np.zeros(6), np.array([100.0])])
    assert (found.low, found.high) == (0.0, 100.0)
    assert found.mean == 50.0


@pytest.mark.parametrize("groups", [[], [np.array([])]])
def test_nothing_has_no_mean(groups: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least one group"):
        bootstrap(groups)


def test_differences_are_those_of_the_same_pair() -> None:
    rows = pd.DataFrame(
        [
            row(seed, pair, operator, version, value)
            for seed, pair, values in (
                (0, "0+1", {"unit": 9.0, "fresh": 5.0, "clone": 8.0, "parent": 6.0}),
                (0, "1+2", {"unit": 1.0, "fresh": 3.0, "clone": 0.0, "parent": 1.0}),
                (1, "0+1", {"unit": 2.0, "fresh": 0.0, "clone": 1.0, "parent": 7.0}),
            )
            for operator, value in values.items()
            for version in (("before",) if operator == "parent" else ("before", "after"))
        ]
    )
    summary = summarize(rows).set_index(["operator", "version"])
    unit = summary.loc[("unit", "after")]
    assert unit["children"] == 3
    assert unit["mean"] == ((9 + 1) / 2 + 2) / 2
    assert unit["vs_random_mean"] == ((4 - 2) / 2 + 2) / 2
    assert unit["vs_clone_mean"] == ((1 + 1) / 2 + 1) / 2
    assert unit["vs_better_parent_mean"] == ((3 + 0) / 2 - 5) / 2
    assert (unit["vs_clone_low"], unit["vs_clone_high"]) == (1, 1)
    assert unit["above_parent"] == (1 / 2 + 0) / 2


def test_alignment_gains_what_it_adds_to_the_same_child() -> None:
    rows = pd.DataFrame(
        [
            {**row(seed, pair, operator, "before", value), "align": align}
            for seed, pair, operator, values in (
                (0, "0+1", "unit", (1.0, 5.0)),
                (0, "0+1", "layer", (2.0, 4.0)),
                (0, "1+2", "unit", (3.0, 3.0)),
                (1, "0+1", "unit", (0.0, 6.0)),
                (1, "0+1", "layer", (0.0, float("nan"))),
            )
            for align, value in zip(("none", "activations"), values, strict=True)
        ]
        + [row(0, "0+1", "clone", "before", 9.0)]
    )
    # Pairs of seed 0 gain (4 + 2) / 2 and 0; the pair of seed 1 gains 6, the lost child aside.
    assert alignment_gain(rows, "before").mean == ((3 + 0) / 2 + 6) / 2


def test_nearness_is_a_correlation_of_ranks() -> None:
    means = pd.DataFrame(
        {
            "operator": ["unit", "layer", "row", "sbx", "clone", "unit"],
            "version": ["before"] * 5 + ["after"],
            "mean": [1.0, 2.0, 100.0, 50.0, 500.0, 7.0],
            "agreement_parent": [0.1, 0.2, 0.3, 0.4, 1.0, 0.0],
        }
    )
    # Ranks 1 2 4 3 against 1 2 3 4: 1 - 6 * 2 / (4 * 15) = 0.8
    assert nearness(means) == pytest.approx(0.8)


def test_what_could_not_be_made_is_counted_and_left_out() -> None:
    rows = pd.DataFrame(
        [
            row(0, "0+1", "unit", "before", 4.0),
            row(0, "1+2", "unit", "before", float("nan")),
            row(0, "0+1", "parent", "before", 4.0),
        ]
    )
    unit = summarize(rows).set_index("operator").loc["unit"]
    assert (unit["children"], unit["failed"], unit["mean"]) == (1, 1, 4.0)


def row(seed: int, pair: str, operator: str, version: str, value: float) -> dict[str, object]:
    return {
        "task": "CartPole-v1",
        "seed": seed,
        "regime": "shared",
        "pair": pair,
        "operator": operator,
        "align": "none",
        "version": version,
        "mean_return": value,
        "agreement_parent": 0.5,
        "agreement_teacher": 0.5,
    }


def test_tables_replace_what_stands_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    write_page(page, "new")
    assert page.read_text() == f"above\n{BEGIN}\n\nnew\n{END}\nbelow\n"
