from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from populations.network import NetworkSpec, Weights
from strategies.crossover import (
    CloneCrossover,
    FreshCrossover,
    RandomCrossover,
    UnitCrossover,
)
from strategies.operator import Family
from strategies.testing import random_family

MakeFamily = Callable[..., Family]
PLAIN = NetworkSpec((3,), (4,), 2)
DEEP = NetworkSpec((3,), (6, 4), 2, norm="layer", dropout_slots=True)
LINEAR = NetworkSpec((3,), (), 2)
A, B = 1, 2  # the numbers in the constant parents


def owner(child: Weights, tensors: tuple[str, ...]) -> int:
    """Return the one parent, A or B, that all these tensors come from."""
    values = {float(value) for name in tensors for value in child[name].ravel()}
    assert len(values) == 1
    return int(values.pop())


# random


def test_random_takes_whole_tensors_from_the_first_parent_with_probability_share(
    constant_family: MakeFamily,
) -> None:
    family, rng = constant_family(PLAIN), np.random.default_rng(0)
    operator = RandomCrossover(share=0.25)
    masks = Counter(
        tuple(owner(child, (name,)) for name in PLAIN.shapes)
        for child in (operator.cross(family, rng) for _ in range(4000))
    )
    assert len(masks) == 16  # four tensors, each by itself
    for mask, count in masks.items():
        p = 0.25 ** mask.count(A) * 0.75 ** mask.count(B)
        assert abs(count / 4000 - p) <= 4.5 * np.sqrt(p * (1 - p) / 4000)


@pytest.mark.parametrize(("share", "expected"), [(1.0, A), (0.0, B)])
def test_random_with_an_extreme_share_copies_one_parent(
    constant_family: MakeFamily, share: float, expected: int
) -> None:
    child = RandomCrossover(share).cross(constant_family(DEEP), np.random.default_rng(0))
    assert owner(child, tuple(DEEP.shapes)) == expected


@pytest.mark.parametrize(("order", "key"), [("network", None), ("alphabetical", sorted)])
def test_random_decides_tensor_after_tensor_in_the_order_it_is_told(
    constant_family: MakeFamily, order: Any, key: Any
) -> None:
    # 13 modules: as text network.12 comes before network.4, and a bias before its weight.
    spec = NetworkSpec((3,), (4, 4, 4), 2, norm="layer", dropout_slots=True)
    names = [f"network.{i}.{kind}" for i in (0, 1, 4, 5, 8, 9, 12) for kind in ("weight", "bias")]
    child = RandomCrossover(order=order).cross(constant_family(spec), np.random.default_rng(7))
    draws = np.random.default_rng(7).random(len(names))
    for name, draw in zip(key(names) if key else names, draws, strict=True):
        assert owner(child, (name,)) == (A if draw < 0.5 else B)
    assert list(child) == names


def test_random_refuses_an_order_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="'network' or 'alphabetical', not 'sorted'"):
        RandomCrossover(order="sorted")  # type: ignore[arg-type]


# unit


def test_unit_takes_row_bias_norm_and_output_column_of_a_unit_together(
    constant_family: MakeFamily,
) -> None:
    family, rng = constant_family(DEEP), np.random.default_rng(0)
    for _ in range(50):
        child = UnitCrossover().cross(family, rng)
        first, second, output = DEEP.blocks
        for block in (first, second):
            owners = child[block.bias]
            for name in block.tensors:
                assert (owners == child[name].T).all()  # whole rows, and vectors
        assert (child[output.weight] == child[second.bias]).all()  # whole columns
        assert owner(child, (output.bias,)) in (A, B)


def test_unit_owners_are_drawn_by_share_and_by_unit(constant_family: MakeFamily) -> None:
    family, rng = constant_family(PLAIN), np.random.default_rng(0)
    children = [UnitCrossover(share=0.3).cross(family, rng) for _ in range(3000)]
    hidden = np.array([child["network.0.bias"] for child in children]) == A
    bias = np.array([owner(child, ("network.2.bias",)) for child in children]) == A
    bound = 4.5 * np.sqrt(0.3 * 0.7 / 3000)
    assert np.abs(hidden.mean(axis=0) - 0.3).max() <= bound
    assert abs(bias.mean() - 0.3) <= bound
    assert len({tuple(row) for row in hidden}) == 16


def test_unit_takes_a_network_without_hidden_layers_as_a_whole(constant_family: MakeFamily) -> None:
    family, rng = constant_family(LINEAR), np.random.default_rng(0)
    children = [UnitCrossover().cross(family, rng) for _ in range(50)]
    assert {owner(child, tuple(LINEAR.shapes)) for child in children} == {A, B}


# controls


def test_clone_copies_the_first_parent() -> None:
    family = random_family(DEEP, 1, 0)
    child = CloneCrossover().cross(family, np.random.default_rng(0))
    assert all(np.array_equal(child[name], family[0][name]) for name in DEEP.shapes)


def test_fresh_needs_no_parents_and_starts_from_the_stated_distribution() -> None:
    spec = NetworkSpec((50,), (200, 300), 40, norm="layer")
    child = FreshCrossover().cross(Family([], spec, [], []), np.random.default_rng(0))
    spec.check(child, "child")
    for block, variance in zip(spec.blocks, (2 / 50, 2 / 200, 1 / 300), strict=True):
        weight = child[block.weight]
        assert np.abs(weight).max() <= np.sqrt(3 * variance) * (1 + 1e-6)
        assert weight.var() == pytest.approx(variance, rel=0.05)
        assert weight.mean() == pytest.approx(0, abs=0.05 * np.sqrt(variance))
        assert not child[block.bias].any()
        if block.norm is not None:
            assert (child[f"{block.norm}.weight"] == 1).all()
            assert not child[f"{block.norm}.bias"].any()
