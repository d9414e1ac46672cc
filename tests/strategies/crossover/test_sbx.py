from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from populations.network import NetworkSpec
from strategies.crossover import SbxCrossover
from strategies.crossover.sbx import spread
from strategies.operator import Family
from strategies.testing import check_crossover_operator, random_family

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")


def test_the_spread_is_that_of_the_formula() -> None:
    u = np.array([0, 0.125, 0.5, 0.875, 0.98])
    # b = sqrt(2 u) or 1 / sqrt(2 (1 - u)) for eta = 1; the step is (b - 1) / 2
    np.testing.assert_allclose(spread(u, 1), [-0.5, -0.25, 0, 0.5, 2])
    np.testing.assert_allclose(spread(u, 0), [-0.5, -0.375, 0, 1.5, 12])


@given(seed=st.integers(0, 1000), eta=st.floats(0, 100))
def test_the_first_child_is_that_of_deap(seed: int, eta: float) -> None:
    module: Any = pytest.importorskip("deap.tools.crossover", exc_type=ImportError)
    family = random_family(SPEC, 2, seed)
    child = SbxCrossover(eta).cross(family, np.random.default_rng(seed))
    parents = [np.concatenate([p[name].ravel() for name in SPEC.shapes]).tolist() for p in family]
    draws = iter(np.random.default_rng(seed).random(SPEC.n_parameters).tolist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.random, "random", draws.__next__)
        expected, _ = module.cxSimulatedBinary(*parents, eta)
    flat = np.concatenate([child[name].ravel() for name in SPEC.shapes])
    np.testing.assert_allclose(flat, expected, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 1000), eta=st.floats(0, 100))
def test_children_of_both_orders_have_the_mean_of_their_parents(seed: int, eta: float) -> None:
    family = random_family(SPEC, 2, seed)
    turned = Family(family[::-1], SPEC, family.ids, family.fitness)
    one, two = (SbxCrossover(eta).cross(f, np.random.default_rng(seed)) for f in (family, turned))
    for name in SPEC.shapes:
        sizes = np.abs(one[name]) + np.abs(two[name]) + 1
        difference = one[name] + two[name] - family[0][name] - family[1][name]
        assert (np.abs(difference) <= 1e-6 * sizes).all()


@pytest.mark.parametrize("eta", [0.0, 2.0, 15.0])
def test_numbers_scatter_around_the_first_parent_by_the_stated_law(
    constant_family: Callable[..., Family], eta: float
) -> None:
    spec = NetworkSpec((100,), (), 200)
    child = SbxCrossover(eta).cross(constant_family(spec), np.random.default_rng(0))
    # A = 1 and B = 2: child = 1 - (b - 1) / 2
    b = 3 - 2 * child["network.0.weight"].astype(np.float64).ravel()
    for bound in (0.5, 0.9, 1.0):  # P(b <= x) = x^(eta + 1) / 2 up to 1
        p = bound ** (eta + 1) / 2
        assert (b <= bound).mean() == pytest.approx(p, abs=5 * np.sqrt(p / len(b)) + 1e-4)
    for bound in (1.1, 1.5):  # P(b > x) = x^-(eta + 1) / 2 from 1 on
        p = bound ** -(eta + 1) / 2
        assert (b > bound).mean() == pytest.approx(p, abs=5 * np.sqrt(p / len(b)) + 1e-4)


@given(eta=st.floats(0, 100))
def test_identical_parents_give_exactly_that_child(eta: float) -> None:
    (parent,) = random_family(SPEC, 1, 0)
    family = Family([parent, parent], SPEC, ["a", "a"], [0.0, 0.0])
    child = SbxCrossover(eta).cross(family, np.random.default_rng(0))
    assert all(np.array_equal(child[name], parent[name]) for name in SPEC.shapes)


def test_a_negative_eta_is_refused() -> None:
    with pytest.raises(ValueError, match="eta must be a finite number of at least 0, not -1"):
        SbxCrossover(-1)


def test_the_widest_spread_keeps_the_contract() -> None:
    check_crossover_operator(SbxCrossover(eta=0))
