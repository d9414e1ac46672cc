from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from strategies.errors import ConformanceError
from strategies.selection import Selection, TruncationSelection, fittest_first
from strategies.testing import check_selection, examine_selection
from strategies.testing.report import raise_failed


class Best(Selection):
    """A correct selection; the classes below break it in one way each."""

    name = "best"

    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        return list(range(n_parents))


class Own(Selection):
    """A correct one that does everything itself but the counting."""

    name = "own"

    def select(self, fitness: Any, n_parents: int, rng: np.random.Generator) -> Any:
        ranking = fittest_first(fitness)
        if n_parents > len(ranking):
            return super().select(fitness, n_parents, rng)
        return self.change([int(index) for index in ranking], n_parents)

    def change(self, ranking: list[int], n_parents: int) -> Any:
        return tuple(ranking[:n_parents])

    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        raise AssertionError("not reached")


class Twice(Own):
    def change(self, ranking: list[int], n_parents: int) -> Any:
        return tuple(ranking[:1] * n_parents)


class Outside(Own):
    def change(self, ranking: list[int], n_parents: int) -> Any:
        return tuple(index + 100 for index in ranking[:n_parents])


class Fractions(Own):
    def change(self, ranking: list[int], n_parents: int) -> Any:
        return tuple(float(index) for index in ranking[:n_parents])


class Arrays(Own):
    def change(self, ranking: list[int], n_parents: int) -> Any:
        return np.array(ranking[:n_parents])


class OneMore(Own):
    def change(self, ranking: list[int], n_parents: int) -> Any:
        return tuple(ranking[: n_parents + 1])


class LeastFitFirst(Own):
    def change(self, ranking: list[int], n_parents: int) -> Any:
        return tuple(ranking[:n_parents][::-1])


class LastOfEquals(Own):
    def select(self, fitness: Any, n_parents: int, rng: np.random.Generator) -> Any:
        backwards = super().select(fitness[::-1], n_parents, rng)
        return tuple(len(fitness) - 1 - index for index in backwards)


class TakesUnscored(Own):
    """NumPy sorts NaN to the end, which is the front of what is turned around."""

    def select(self, fitness: Any, n_parents: int, rng: np.random.Generator) -> Any:
        super().select(fitness, n_parents, rng)  # refuses where there are too few
        return tuple(int(index) for index in np.argsort(fitness, kind="stable")[::-1][:n_parents])


class TakesWhatThereIs(Own):
    def select(self, fitness: Any, n_parents: int, rng: np.random.Generator) -> Any:
        return tuple(int(index) for index in fittest_first(fitness)[:n_parents])


class NeedsTwo(Own):
    def change(self, ranking: list[int], n_parents: int) -> Any:
        assert n_parents >= 2
        return super().change(ranking, n_parents)


class Writes(Own):
    def select(self, fitness: Any, n_parents: int, rng: np.random.Generator) -> Any:
        fitness[np.isnan(fitness)] = -np.inf
        return super().select(fitness, n_parents, rng)


class GlobalRandomness(Best):
    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        return [int(i) for i in np.random.permutation(n_candidates)[:n_parents]]  # noqa: NPY002


class OwnGenerator(Best):
    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        return [int(i) for i in np.random.default_rng().permutation(n_candidates)[:n_parents]]


class KeepsFirst(Best):
    """Chooses again whom it drew for the first child."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[int, int], list[int]] = {}

    def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
        drawn = [int(i) for i in rng.permutation(n_candidates)[:n_parents]]
        return self._drawn.setdefault((n_candidates, n_parents), drawn)


class Unpicklable(Best):
    def __init__(self) -> None:
        self.numbers = itertools.count
        self.function = lambda x: x


class Hides(Best):
    def __init__(self, share: float = 0.5) -> None:
        self._share = share


@pytest.mark.parametrize("selection", [Best(), Own(), TruncationSelection(share=0.1)])
def test_correct_selections_pass(selection: Selection) -> None:
    check_selection(selection)


@pytest.mark.parametrize(
    ("selection", "checks", "message"),
    [
        (Twice(), ["indices"], r"chooses somebody twice: \(2, 2\) .*; draw without replacement"),
        (Outside(), ["indices"], "of 8 candidates .*; return indices into fitness, 0 to 7 here"),
        (Fractions(), ["indices"], r"returns \(2.0,\), which is no tuple of whole numbers"),
        (Arrays(), ["indices"], r"return tuple\(int\(index\) for index in"),
        (OneMore(), ["number"], "chooses 1 instead of 0 parents .*; choose exactly n_parents"),
        (LeastFitFirst(), ["order"], "sort by falling fitness, equal ones by index"),
        (LastOfEquals(), ["order"], "given equal candidates, n_parents 2, seed 0"),
        (TakesUnscored(), ["order", "no fitness"], "chooses candidate 6, whose fitness is NaN"),
        (TakesWhatThereIs(), ["too few"], "raise strategies.errors.SelectionError"),
        (NeedsTwo(), ["errors"], "raises AssertionError in line .* n_parents 0, seed 0"),
        (Writes(), ["too few", "read-only"], "writes into the fitness"),
        (GlobalRandomness(), ["global rng"], "uses the global generator of numpy.random"),
        (OwnGenerator(), ["repeatable", "pickling"], "another choice for equal arguments"),
        (KeepsFirst(), ["repeatable"], "where it has made others before .* keep nothing between"),
        (Unpicklable(), ["pickling"], "cannot be pickled: .*; define the class at the top"),
        (Hides(), ["params"], "must keep its argument 'share'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Selection) else "",
)
def test_each_fault_is_found_and_explained(
    selection: Selection, checks: list[str], message: str
) -> None:
    outcomes = examine_selection(selection)
    assert [outcome.check for outcome in outcomes if outcome.failed] == checks
    with pytest.raises(ConformanceError, match=f"(?s)^selection '.*{message}"):
        raise_failed("selection", selection, outcomes)


def test_a_class_is_refused_with_how_to_make_an_instance() -> None:
    with pytest.raises(TypeError, match=r"^pass an instance: Best\(\)$"):
        check_selection(Best)  # type: ignore[arg-type]


class Shy(Best):
    def draw(self, n_candidates: int, n_parents: int) -> list[int]:  # type: ignore[override]
        return []


def test_a_method_of_other_arguments_is_told_how_to_define_it() -> None:
    (failed,) = [outcome for outcome in examine_selection(Shy()) if outcome.failed]
    assert failed.problem == "takes draw(self, n_candidates, n_parents)"
    assert failed.mend == "define draw(self, n_candidates, n_parents, rng)"
