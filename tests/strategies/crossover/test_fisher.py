from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from populations.network import NetworkSpec, Weights
from strategies.crossover.fisher import FisherCrossover
from strategies.families import family_of
from strategies.operator import Family
from strategies.parents import Parent

SPEC = NetworkSpec((1,), (), 2)  # four numbers: a weight and a bias for each of two actions


def numbers(*values: float) -> Weights:
    return {
        "network.0.weight": np.array(values[:2], np.float32)[:, None],
        "network.0.bias": np.array(values[2:], np.float32),
    }


def cross(operator: FisherCrossover, parents: list[Weights], fisher: list[Weights]) -> np.ndarray:
    ids = [f"p{index}" for index in range(len(parents))]
    family = Family(parents, SPEC, ids, [0.0] * len(parents), {"fisher": fisher})
    child = operator.cross(family, np.random.default_rng(0))
    return np.concatenate([tensor.ravel() for tensor in child.values()])


def test_every_number_is_weighed_by_information_of_norm_one_and_share() -> None:
    a, b = numbers(1, 2, 3, 4), numbers(5, 6, 7, 8)
    of_a, of_b = numbers(3, 4, 0, 0), numbers(0, 5, 12, 0)  # norms 5 and 13
    child = cross(FisherCrossover(low=0.25, high=0.25), [a, b], [of_a, of_b])
    trust_a = 0.25 * np.maximum([3 / 5, 4 / 5, 0, 0], 1e-6)
    trust_b = 0.75 * np.maximum([0, 5 / 13, 12 / 13, 0], 1e-6)
    expected = (trust_a * [1, 2, 3, 4] + trust_b * [5, 6, 7, 8]) / (trust_a + trust_b)
    np.testing.assert_allclose(child, expected, rtol=1e-6)
    assert child[3] == 0.25 * 4 + 0.75 * 8  # nobody knows: shares alone


def test_all_but_the_first_parent_split_the_rest() -> None:
    nothing_known = [numbers(0, 0, 0, 0)] * 3
    parents = [numbers(1, 0, 0, 0), numbers(0, 1, 0, 0), numbers(0, 0, 1, 0)]
    operator = FisherCrossover(low=0.6, high=0.6, n_parents=3)
    shares = cross(operator, parents, nothing_known)
    assert shares[0] == pytest.approx(0.6)
    assert (shares[1:3] > 0).all()
    assert shares.sum() == pytest.approx(1)
    assert shares[3] == 0


def test_the_scale_of_information_does_not_matter() -> None:
    a, b = numbers(1, 2, 3, 4), numbers(5, 6, 7, 8)
    of_a, of_b = numbers(1, 2, 3, 4), numbers(4, 3, 2, 1)
    sure_of_itself = {name: 1e6 * tensor for name, tensor in of_b.items()}
    np.testing.assert_allclose(
        cross(FisherCrossover(), [a, b], [of_a, of_b]),
        cross(FisherCrossover(), [a, b], [of_a, sure_of_itself]),
        rtol=1e-5,
    )


def test_a_share_of_one_gives_the_first_parent_exactly() -> None:
    rng = np.random.default_rng(0)
    spec = NetworkSpec((3,), (5, 4), 2, norm="layer")
    states = rng.standard_normal((30, 3)).astype(np.float32)
    weights = [
        {name: rng.standard_normal(s).astype(np.float32) for name, s in spec.shapes.items()}
        for _ in range(2)
    ]
    parents = [Parent(f"p{index}", spec, each, states) for index, each in enumerate(weights)]
    for share, kept in ((1.0, weights[0]), (0.0, weights[1])):
        operator = FisherCrossover(low=share, high=share)
        child = operator.cross(family_of(operator, parents, [0.0, 0.0]), rng)
        for name in spec.shapes:
            np.testing.assert_array_equal(child[name], kept[name])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"low": -0.1}, r"low must be a number in \[0, 1\]"),
        ({"high": 1.1}, r"high must be a number in \[0, 1\]"),
        ({"low": 0.6, "high": 0.5}, r"low \(0.6\) must not be above high \(0.5\)"),
        ({"n_parents": 1}, "n_parents must be a whole number of at least 2"),
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FisherCrossover(**params)
