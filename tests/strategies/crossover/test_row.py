from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies.crossover import RowCrossover
from strategies.operator import Family
from strategies.testing import random_family

MakeFamily = Callable[..., Family]
DEEP = NetworkSpec((3,), (6, 4), 2, norm="layer", dropout_slots=True)
LINEAR = NetworkSpec((3,), (), 2)
A, B = 1, 2  # the numbers in the constant parents


def test_a_row_comes_with_its_bias_and_normalization(constant_family: MakeFamily) -> None:
    family, rng = constant_family(DEEP), np.random.default_rng(0)
    for _ in range(50):
        child = RowCrossover().cross(family, rng)
        for block in DEEP.blocks:
            for name in block.tensors:
                assert (child[block.bias] == child[name].T).all()  # whole rows, and vectors
            assert np.isin(child[block.bias], [A, B]).all()


def test_rows_are_drawn_by_share_and_each_by_itself(constant_family: MakeFamily) -> None:
    family, rng = constant_family(DEEP), np.random.default_rng(0)
    operator = RowCrossover(share=0.3)
    children = [operator.cross(family, rng) for _ in range(3000)]
    owners = np.array(
        [np.concatenate([child[block.bias] for block in DEEP.blocks]) == A for child in children]
    )
    assert owners.shape == (3000, 12)  # the two actions have rows, too
    bound = 4.5 * np.sqrt(0.3 * 0.7 / 3000)
    assert np.abs(owners.mean(axis=0) - 0.3).max() <= bound
    correlation = np.corrcoef(owners.T) - np.eye(12)
    assert np.abs(correlation).max() <= 4.5 / np.sqrt(3000)


def test_a_network_without_hidden_layers_is_mixed_by_action(constant_family: MakeFamily) -> None:
    family, rng = constant_family(LINEAR), np.random.default_rng(0)
    operator = RowCrossover()
    masks = Counter(
        tuple(operator.cross(family, rng)["network.0.bias"].tolist()) for _ in range(200)
    )
    assert set(masks) == {(A, A), (A, B), (B, A), (B, B)}


@pytest.mark.parametrize(("share", "expected"), [(1.0, 0), (0.0, 1)])
def test_an_extreme_share_copies_one_parent(share: float, expected: int) -> None:
    family = random_family(DEEP, 2, 0)
    child = RowCrossover(share).cross(family, np.random.default_rng(0))
    assert all(np.array_equal(child[name], family[expected][name]) for name in DEEP.shapes)


def test_a_share_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share must be a number in \[0, 1\], not 1.5"):
        RowCrossover(1.5)
