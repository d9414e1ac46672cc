from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.crossover import DifferentialCrossover
from strategies.operator import Family
from strategies.testing import check_crossover_operator, random_family

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")
SMALL = NetworkSpec((2,), (), 2)


def flat(weights: Weights, spec: NetworkSpec = SPEC) -> NDArray[np.float64]:
    return np.concatenate([weights[name].ravel() for name in spec.shapes]).astype(np.float64)


@given(seed=st.integers(0, 1000), factor=st.floats(0, 2), rate=st.floats(0, 1))
def test_a_child_is_that_of_the_loop_in_the_paper(seed: int, factor: float, rate: float) -> None:
    family = random_family(SPEC, 3, seed)
    child = DifferentialCrossover(factor, rate).cross(family, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    draws, always = rng.random(SPEC.n_parameters), rng.integers(SPEC.n_parameters)
    base, plus, minus = (flat(each) for each in family)
    expected = base.copy()
    for j in range(SPEC.n_parameters):
        if draws[j] < rate or j == always:
            expected[j] = base[j] + factor * (plus[j] - minus[j])
    np.testing.assert_allclose(flat(child), expected, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 1000), factor=st.floats(0, 2))
def test_all_numbers_move_as_in_pymoo(seed: int, factor: float) -> None:
    module: Any = pytest.importorskip("pymoo.operators.crossover.dex", exc_type=ImportError)
    family = random_family(SPEC, 3, seed)
    child = DifferentialCrossover(factor, rate=1).cross(family, np.random.default_rng(seed))
    parents = np.stack([flat(each)[None] for each in family])
    expected = module.de_differential(parents, factor, jitter=False)[0]
    np.testing.assert_allclose(flat(child), expected, rtol=1e-5, atol=1e-5)


def test_a_rate_of_zero_moves_exactly_one_number_each_as_often() -> None:
    family, rng = random_family(SMALL, 3, 0), np.random.default_rng(0)
    operator = DifferentialCrossover(rate=0)
    moved: Counter[int] = Counter()
    for _ in range(3000):
        changed = np.flatnonzero(flat(operator.cross(family, rng), SMALL) != flat(family[0], SMALL))
        assert len(changed) == 1
        moved[int(changed[0])] += 1
    assert len(moved) == SMALL.n_parameters == 6
    for count in moved.values():
        assert abs(count / 3000 - 1 / 6) <= 4.5 * np.sqrt(1 / 6 * 5 / 6 / 3000)


def test_numbers_move_with_probability_rate() -> None:
    spec = NetworkSpec((100,), (), 200)
    family = random_family(spec, 3, 0)
    child = DifferentialCrossover(rate=0.3).cross(family, np.random.default_rng(0))
    moved = flat(child, spec) != flat(family[0], spec)
    assert moved.mean() == pytest.approx(0.3, abs=4.5 * np.sqrt(0.3 * 0.7 / moved.size))


def test_identical_parents_give_exactly_that_child() -> None:
    (parent,) = random_family(SPEC, 1, 0)
    family = Family([parent] * 3, SPEC, ["a"] * 3, [0.0] * 3)
    child = DifferentialCrossover().cross(family, np.random.default_rng(0))
    assert all(np.array_equal(child[name], parent[name]) for name in SPEC.shapes)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"factor must be a number in \[0, 2\], not 3"):
        DifferentialCrossover(factor=3)
    with pytest.raises(ValueError, match=r"rate must be a number in \[0, 1\], not -1"):
        DifferentialCrossover(rate=-1)


@pytest.mark.parametrize("rate", [0, 1])
def test_extreme_rates_keep_the_contract(rate: float) -> None:
    check_crossover_operator(DifferentialCrossover(rate=rate))
