from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.errors import SelectionError
from strategies.selection import (
    CheckedSelection,
    RankSelection,
    Selection,
    TournamentSelection,
    TruncationSelection,
    selections,
)

DRAWS = 6000
FITNESS = np.array([3.0, np.nan, 9.0, 1.0, 7.0, 5.0])
BY_RANK = (2, 4, 5, 0, 3)  # candidates of FITNESS, fittest first; candidate 1 has none


@pytest.fixture(params=selections.available())
def selection(request: pytest.FixtureRequest) -> Selection:
    return selections.create(request.param)


def frequencies(selection: Selection, n_parents: int) -> dict[tuple[int, ...], float]:
    """Return how often each tuple of ranks was selected."""
    rng = np.random.default_rng(12345)
    counts = Counter(
        tuple(BY_RANK.index(i) for i in selection.select(FITNESS, n_parents, rng))
        for _ in range(DRAWS)
    )
    return {ranks: count / DRAWS for ranks, count in counts.items()}


def assert_close(found: dict[tuple[int, ...], float], exact: dict[tuple[int, ...], float]) -> None:
    assert set(found) == {ranks for ranks, p in exact.items() if p > 0}
    assert sum(exact.values()) == pytest.approx(1)
    for ranks, p in exact.items():
        bound = 4.5 * np.sqrt(p * (1 - p) / DRAWS) + 1e-12  # 4.5 standard errors
        assert abs(found.get(ranks, 0.0) - p) <= bound, ranks


def test_truncation_draws_evenly_from_the_fittest() -> None:
    found = frequencies(TruncationSelection(share=0.5), 1)  # ceil(0.5 * 5) = 3 are eligible
    assert_close(found, {(0,): 1 / 3, (1,): 1 / 3, (2,): 1 / 3})
    found = frequencies(TruncationSelection(share=0.5), 2)
    assert_close(found, {(0, 1): 1 / 3, (0, 2): 1 / 3, (1, 2): 1 / 3})


def test_truncation_takes_the_next_fittest_when_it_cuts_too_deep() -> None:
    assert frequencies(TruncationSelection(share=0.1), 3) == {(0, 1, 2): 1.0}


def test_tournament_wins_have_their_exact_probabilities() -> None:
    # Rank i of 5 is the best of 3 contestants in C(4 - i, 2) of C(5, 3) = 10 tournaments.
    found = frequencies(TournamentSelection(size=3), 1)
    assert_close(found, {(0,): 0.6, (1,): 0.3, (2,): 0.1})


def test_tournament_winners_leave_the_pool() -> None:
    # With 5 of 5 and then 4 of 4 contestants the fittest win in turn.
    assert frequencies(TournamentSelection(size=9), 2) == {(0, 1): 1.0}
    # Size 1 draws evenly: each of the C(5, 2) = 10 pairs is equally likely.
    pairs: dict[tuple[int, ...], float] = {(i, j): 0.1 for i in range(5) for j in range(i + 1, 5)}
    assert_close(frequencies(TournamentSelection(size=1), 2), pairs)


def test_rank_probabilities_fall_linearly() -> None:
    found = frequencies(RankSelection(pressure=1.5), 1)
    assert_close(found, {(0,): 0.3, (1,): 0.25, (2,): 0.2, (3,): 0.15, (4,): 0.1})


def test_rank_with_full_pressure_never_takes_the_last() -> None:
    found = frequencies(RankSelection(pressure=2), 1)
    assert_close(found, {(0,): 0.4, (1,): 0.3, (2,): 0.2, (3,): 0.1, (4,): 0.0})


def test_rank_draws_further_parents_among_those_left() -> None:
    p = (0.3, 0.25, 0.2, 0.15, 0.1)
    pairs: dict[tuple[int, ...], float] = {
        (i, j): p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j])
        for i in range(5)
        for j in range(i + 1, 5)
    }
    assert_close(frequencies(RankSelection(pressure=1.5), 2), pairs)


@given(
    fitness=st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=8),
    n_parents=st.integers(0, 4),
    name=st.sampled_from(selections.available()),
    seed=st.integers(0, 1000),
)
def test_selected_indices_are_distinct_scored_and_fitter_first(
    fitness: list[float], n_parents: int, name: str, seed: int
) -> None:
    scored = [value for value in fitness if not np.isnan(value)]
    rng = np.random.default_rng(seed)
    if len(scored) < n_parents:
        with pytest.raises(SelectionError):
            selections.create(name).select(np.array(fitness), n_parents, rng)
        return
    picked = selections.create(name).select(np.array(fitness), n_parents, rng)
    assert len(picked) == len(set(picked)) == n_parents
    assert all(type(index) is int for index in picked)
    values = [fitness[index] for index in picked]
    assert not np.isnan(values).any()
    assert values == sorted(values, reverse=True)


def test_ties_are_broken_by_index(selection: Selection) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        picked = selection.select(np.array([1.0, 1.0, 1.0, 1.0]), 2, rng)
        assert list(picked) == sorted(picked)
    assert selection.select(np.array([0.0, 2.0, 2.0]), 3, rng) == (1, 2, 0)


def test_selection_depends_on_ranks_only(selection: Selection) -> None:
    fitness = np.array([-5.0, 0.0, 3.0, 2.0, 100.0])
    a = selection.select(fitness, 2, np.random.default_rng(5))
    assert a == selection.select(np.exp(fitness / 10), 2, np.random.default_rng(5))


def test_all_candidates_are_parents_if_all_are_needed(selection: Selection) -> None:
    assert selection.select(FITNESS, 5, np.random.default_rng(0)) == BY_RANK


def test_too_few_candidates_are_explained(selection: Selection) -> None:
    with pytest.raises(
        SelectionError, match="3 parents are needed, but only 2 of 4 candidates have a fitness"
    ):
        selection.select(np.array([1.0, np.nan, 2.0, np.nan]), 3, np.random.default_rng(0))


def test_no_parents_can_be_selected_from_nobody(selection: Selection) -> None:
    assert selection.select(np.array([]), 0, np.random.default_rng(0)) == ()


@pytest.mark.parametrize(
    ("cls", "params", "message"),
    [
        (TruncationSelection, {"share": 0}, "share must be above 0"),
        (TruncationSelection, {"share": 1.5}, r"share must be a number in \[0, 1\]"),
        (TournamentSelection, {"size": 0}, "size must be a whole number of at least 1"),
        (TournamentSelection, {"size": 2.5}, "size must be a whole number of at least 1"),
        (RankSelection, {"pressure": 2.5}, r"pressure must be a number in \[1, 2\]"),
    ],
)
def test_invalid_params_are_refused(
    cls: type[Selection], params: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**params)


# --- what is made of a selection that is wrong ---------------------------------------------------


class Drawing(Selection):
    """Draws what it is told to, as ranks or as indices."""

    name = "drawing"

    def __init__(self, given: Any) -> None:
        self.given = given

    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> Any:
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given


class Choosing(Drawing):
    """Chooses what it is told to, without a look at ranks."""

    name = "choosing"

    def select(self, fitness: Any, n_parents: int, rng: np.random.Generator) -> Any:
        return self.draw(len(fitness), n_parents, rng)


WRONG = [
    [0],
    [],
    None,
    7,
    [0, 0],
    [0, 2, 3],
    [0.0, 2.0],
    [True, 2],
    [0, 9],
    [-1, 0],
    RuntimeError("boom"),
    SystemExit("enough"),
]


@pytest.mark.parametrize("given", WRONG, ids=repr)
@pytest.mark.parametrize("kind", [Drawing, Choosing])
def test_what_is_no_choice_of_parents_is_refused_by_name(kind: type[Drawing], given: Any) -> None:
    selection = kind(given)
    with pytest.raises(SelectionError) as caught:
        CheckedSelection(selection).select(FITNESS, 2, np.random.default_rng(0))
    text = str(caught.value)
    assert text.startswith(f"the selection {selection.name} cannot choose 2 of 6 candidates: ")
    assert "\n" not in text
    assert (str(given) if isinstance(given, BaseException) else repr(given)) in text


def test_a_long_text_of_a_selection_is_cut() -> None:
    for wrong in (RuntimeError("x" * 3_000_000), list(range(1_000_000))):
        with pytest.raises(SelectionError) as caught:
            CheckedSelection(Choosing(wrong)).select(FITNESS, 2, np.random.default_rng(0))
        assert len(str(caught.value)) < 1500


def test_candidates_without_a_fitness_are_refused() -> None:
    with pytest.raises(SelectionError, match="select gave candidate 1, which has no fitness"):
        CheckedSelection(Choosing([2, 1])).select(FITNESS, 2, np.random.default_rng(0))


def test_the_fitness_that_is_shown_cannot_be_changed() -> None:
    class Writing(Choosing):
        name = "writing"

        def select(self, fitness: Any, n_parents: int, rng: np.random.Generator) -> Any:
            fitness[:] = 0
            return (0, 2)

    with pytest.raises(SelectionError, match=r"the selection writing .*read-only"):
        CheckedSelection(Writing(None)).select(FITNESS, 2, np.random.default_rng(0))


def test_parents_in_another_order_are_put_in_theirs() -> None:
    ties = np.array([4.0, 9.0, 4.0, 1.0])
    for others in ([3, 2, 0, 1], np.array([0, 3, 1, 2]), {0, 1, 2, 3}):
        chosen = CheckedSelection(Choosing(others)).select(ties, 4, np.random.default_rng(0))
        assert chosen == (1, 0, 2, 3)
        assert {type(index) for index in chosen} == {int}


def test_a_selection_that_is_right_is_believed(selection: Selection) -> None:
    for seed in range(20):
        for n_parents in range(6):
            expected = selection.select(FITNESS, n_parents, np.random.default_rng(seed))
            checked = CheckedSelection(selection)
            assert checked.select(FITNESS, n_parents, np.random.default_rng(seed)) == expected
