from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from populations.network import NetworkSpec
from strategies.crossover import WeightedCrossover
from strategies.operator import Family
from strategies.testing import check_crossover_operator, random_family

MakeFamily = Callable[..., Family]
PLAIN = NetworkSpec((3,), (4,), 2)
DEEP = NetworkSpec((3,), (6, 4), 2, norm="layer", dropout_slots=True)
A, B = 1, 2  # the numbers in the constant parents


def unit_family(n_parents: int) -> Family:
    """Make parents of which the i-th has a 1 at entry i alone: a child shows their weights."""
    spec = NetworkSpec((n_parents,), (), 1)
    bias = np.zeros(1, np.float32)
    parents = [
        {"network.0.weight": row[None], "network.0.bias": bias}
        for row in np.eye(n_parents, dtype=np.float32)
    ]
    return Family(parents, spec, [f"p{i}" for i in range(n_parents)], [0.0] * n_parents)


@given(t=st.floats(-2, 3), seed=st.integers(0, 100))
def test_equal_bounds_follow_the_formula(t: float, seed: int) -> None:
    family = random_family(PLAIN, 2, seed)
    child = WeightedCrossover(t, t).cross(family, np.random.default_rng(0))
    for name in PLAIN.shapes:
        a, b = (parent[name].astype(np.float64) for parent in family)
        np.testing.assert_allclose(child[name], t * a + (1 - t) * b, rtol=1e-5, atol=1e-5)


def test_one_weight_is_drawn_per_child_evenly(constant_family: MakeFamily) -> None:
    family, rng = constant_family(DEEP), np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        child = WeightedCrossover(low=0.2, high=1.2).cross(family, rng)
        values = np.concatenate([child[name].ravel() for name in DEEP.shapes])
        assert np.ptp(values) < 1e-6
        drawn.append(B - values[0])  # t * 1 + (1 - t) * 2 = 2 - t
    assert 0.2 - 1e-6 <= min(drawn) < 0.21
    assert 1.19 < max(drawn) <= 1.2 + 1e-6
    assert np.mean(drawn) == pytest.approx(0.7, abs=0.03)  # 4.6 standard errors
    assert np.std(drawn) == pytest.approx(np.sqrt(1 / 12), abs=0.02)


@pytest.mark.parametrize(("t", "expected"), [(1.0, 0), (0.0, 1)])
def test_the_ends_are_exactly_a_parent(t: float, expected: int) -> None:
    family = random_family(DEEP, 2, 0)
    child = WeightedCrossover(t, t).cross(family, np.random.default_rng(0))
    assert all(np.array_equal(child[name], family[expected][name]) for name in DEEP.shapes)


def test_bounds_in_the_wrong_order_or_infinite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"low \(0\.8\) must not be above high \(0\.2\)"):
        WeightedCrossover(0.8, 0.2)
    with pytest.raises(ValueError, match="high must be a finite number, not inf"):
        WeightedCrossover(0.0, float("inf"))


@given(t=st.floats(-2, 3), n_parents=st.integers(2, 6))
def test_any_number_of_parents_is_averaged_with_weights_that_sum_to_one(
    t: float, n_parents: int
) -> None:
    family = unit_family(n_parents)
    operator = WeightedCrossover(t, t, n_parents)
    assert operator.n_parents == n_parents
    weights = operator.cross(family, np.random.default_rng(0))["network.0.weight"][0]
    assert weights[0] == np.float32(t)
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    others = weights[1:] / (1 - t) if abs(1 - t) > 1e-3 else weights[1:] * 0
    assert (others >= 0).all()


def test_every_split_among_the_other_parents_is_equally_likely() -> None:
    family = unit_family(3)
    rng, operator = np.random.default_rng(0), WeightedCrossover(0.2, 0.6, n_parents=3)
    weights = np.array([operator.cross(family, rng)["network.0.weight"][0] for _ in range(2000)])
    part = weights[:, 1] / (1 - weights[:, 0])  # of two others: even on [0, 1]
    assert np.mean(part) == pytest.approx(0.5, abs=0.03)  # 4.6 standard errors
    assert np.std(part) == pytest.approx(np.sqrt(1 / 12), abs=0.02)
    assert np.corrcoef(part, weights[:, 0])[0, 1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("n_parents", [1, 2.5, True])
def test_fewer_than_two_parents_are_refused(n_parents: int) -> None:
    with pytest.raises(ValueError, match="n_parents must be a whole number of at least 2"):
        WeightedCrossover(n_parents=n_parents)


@pytest.mark.parametrize("n_parents", [3, 5])
def test_more_parents_keep_the_contract(n_parents: int) -> None:
    check_crossover_operator(WeightedCrossover(-0.5, 1.5, n_parents))
