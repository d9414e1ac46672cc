from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.crossover import SplitSlerpCrossover
from strategies.operator import Family
from strategies.testing import random_family

PLAIN = NetworkSpec((3,), (6, 4), 2)
NORM = NetworkSpec((3,), (6, 4), 2, norm="layer")


def by_unit(weights: Weights, spec: NetworkSpec) -> list[NDArray[np.float64]]:
    """Return all numbers of each unit, in the layout of the docstring."""
    return [
        np.concatenate([np.atleast_1d(weights[name][unit]) for name in block.tensors])
        for block in spec.blocks
        for unit in range(block.n_out)
    ]


def m2n2(
    first: NDArray[np.float64], second: NDArray[np.float64], split: int, t: float
) -> NDArray[np.float64]:
    """Return the flat child as the code of the paper makes it, with t the share of the first."""
    share = np.where(np.arange(len(first)) < split, t, 1 - t)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    angle = np.arccos(cosine)
    return (np.sin(share * angle) * first + np.sin((1 - share) * angle) * second) / np.sin(angle)


@given(seed=st.integers(0, 1000))
def test_a_child_is_that_of_the_paper_with_the_point_at_the_start_of_a_unit(seed: int) -> None:
    family = random_family(PLAIN, 2, seed)
    child = SplitSlerpCrossover().cross(family, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    drawn, t = rng.integers(PLAIN.n_parameters), rng.uniform(0, 1)
    units = [by_unit(each, PLAIN) for each in family]
    starts = np.cumsum([0, *map(len, units[0])])
    split = max(start for start in starts if start <= drawn)
    expected = m2n2(*(np.concatenate(each).astype(np.float64) for each in units), split, t)
    np.testing.assert_allclose(np.concatenate(by_unit(child, PLAIN)), expected, atol=1e-5)


def test_the_point_is_drawn_by_the_size_of_units_and_splits_none(
    constant_family: Callable[..., Family],
) -> None:
    # Parents of ones and twos are parallel, so that each number is 2 - share.
    family, rng = constant_family(NORM), np.random.default_rng(0)
    sizes = [len(unit) for unit in by_unit(family[0], NORM)]
    assert sizes == [6] * 6 + [9] * 4 + [5] * 2
    splits: Counter[int] = Counter()
    for _ in range(2000):
        child = SplitSlerpCrossover(0.8, 0.9).cross(family, rng)
        shares = [2 - unit for unit in by_unit(child, NORM)]
        assert max(map(np.ptp, shares)) < 1e-6
        of_unit = np.array([unit[0] for unit in shares])
        is_before = of_unit > 0.5
        t = np.where(is_before, of_unit, 1 - of_unit)
        assert np.ptp(t) < 1e-6
        assert 0.8 - 1e-6 <= t[0] <= 0.9 + 1e-6
        splits[int(is_before.sum())] += 1
        assert is_before[: is_before.sum()].all()
    for unit, size in enumerate(sizes):
        p = size / sum(sizes)
        assert abs(splits[unit] / 2000 - p) <= 4.5 * np.sqrt(p * (1 - p) / 2000)


@given(seed=st.integers(0, 1000))
def test_normalizations_are_linear_and_have_no_part_in_the_angle(seed: int) -> None:
    family, t = random_family(NORM, 2, seed), 0.3
    child = SplitSlerpCrossover(t, t).cross(family, np.random.default_rng(seed))
    drawn = np.random.default_rng(seed).integers(NORM.n_parameters)
    linear = [name for block in NORM.blocks for name in (block.weight, block.bias)]
    first, second = (np.concatenate([each[name].ravel() for name in linear]) for each in family)
    angle = np.arccos(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    end = 0
    for block in NORM.blocks:
        for unit in range(block.n_out):
            end += block.n_in + len(block.tensors) - 1
            share = t if end <= drawn else 1 - t
            for name in block.tensors:
                a, b = share, 1 - share
                if name in linear:
                    a, b = np.sin(a * angle) / np.sin(angle), np.sin(b * angle) / np.sin(angle)
                expected = a * family[0][name][unit] + b * family[1][name][unit]
                np.testing.assert_allclose(child[name][unit], expected, atol=1e-5)


def test_bounds_outside_the_parents_or_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"low must be a number in \[0, 1\], not -1"):
        SplitSlerpCrossover(-1, 0.5)
    with pytest.raises(ValueError, match=r"low \(0\.8\) must not be above high \(0\.2\)"):
        SplitSlerpCrossover(0.8, 0.2)
