from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from populations.network import NetworkSpec
from strategies.crossover import SbxSwapCrossover
from strategies.operator import Family
from strategies.testing import random_family

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")
WIDE = NetworkSpec((100,), (), 200)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_numbers_lie_near_the_first_parent_with_probability_share(
    constant_family: Callable[..., Family], share: float
) -> None:
    operator = SbxSwapCrossover(eta=1e6, share=share)
    child = operator.cross(constant_family(WIDE), np.random.default_rng(0))
    values = child["network.0.weight"].ravel()
    near_first = np.abs(values - 1) < 1e-3
    assert (near_first | (np.abs(values - 2) < 1e-3)).all()
    assert near_first.mean() == pytest.approx(share, abs=4.5 * np.sqrt(share * (1 - share) / 2e4))


@pytest.mark.parametrize(("share", "near", "far"), [(1.0, 1, 2), (0.0, 2, 1)])
def test_numbers_scatter_around_their_parent_by_the_stated_law(
    constant_family: Callable[..., Family], share: float, near: int, far: int
) -> None:
    child = SbxSwapCrossover(eta=2, share=share).cross(
        constant_family(WIDE), np.random.default_rng(0)
    )
    # child = near + (b - 1) / 2 * (near - far)
    b = 1 + 2 * (child["network.0.weight"].ravel() - near) / (near - far)
    for bound in (0.5, 0.9):  # P(b <= x) = x^(eta + 1) / 2 up to 1
        assert (b <= bound).mean() == pytest.approx(bound**3 / 2, abs=0.016)
    for bound in (1.1, 1.5):  # P(b > x) = x^-(eta + 1) / 2 from 1 on
        assert (b > bound).mean() == pytest.approx(bound**-3 / 2, abs=0.016)


def test_numbers_scatter_as_those_of_pymoo(constant_family: Callable[..., Family]) -> None:
    module: Any = pytest.importorskip("pymoo.operators.crossover.sbx", exc_type=ImportError)
    n = 20_000
    parents = np.stack([np.full((1, n), 1.0), np.full((1, n), 2.0)])
    children = module.cross_sbx(
        parents,
        np.full(n, -1e9),  # bounds too far away to matter
        np.full(n, 1e9),
        eta=np.full((1, 1), 5.0),
        prob_var=1.0,
        prob_bin=np.full((1, 1), 0.5),
        random_state=np.random.default_rng(0),
    )
    child = SbxSwapCrossover(eta=5.0).cross(constant_family(WIDE), np.random.default_rng(1))
    assert ks_2samp(child["network.0.weight"].ravel(), children[0, 0]).pvalue > 0.01


@given(seed=st.integers(0, 1000), eta=st.floats(0, 100))
def test_the_numbers_not_taken_have_the_mean_of_the_parents(seed: int, eta: float) -> None:
    """The second child has c2 where the first has c1: that of parents in the other order."""
    family = random_family(SPEC, 2, seed)
    turned = Family(family[::-1], SPEC, family.ids, family.fitness)
    operator = SbxSwapCrossover(eta)
    one, two = (operator.cross(each, np.random.default_rng(seed)) for each in (family, turned))
    for name in SPEC.shapes:
        sizes = np.abs(one[name]) + np.abs(two[name]) + 1
        difference = one[name] + two[name] - family[0][name] - family[1][name]
        assert (np.abs(difference) <= 1e-6 * sizes).all()


def test_identical_parents_give_exactly_that_child() -> None:
    (parent,) = random_family(SPEC, 1, 0)
    family = Family([parent, parent], SPEC, ["a", "a"], [0.0, 0.0])
    child = SbxSwapCrossover(eta=0).cross(family, np.random.default_rng(0))
    assert all(np.array_equal(child[name], parent[name]) for name in SPEC.shapes)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="eta must be a finite number of at least 0, not -1"):
        SbxSwapCrossover(-1)
    with pytest.raises(ValueError, match=r"share must be a number in \[0, 1\], not 2"):
        SbxSwapCrossover(share=2)
