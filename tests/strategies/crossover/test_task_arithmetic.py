from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from populations.network import NetworkSpec, Weights
from strategies.crossover import TaskArithmeticCrossover
from strategies.errors import NeedError
from strategies.families import family_of
from strategies.operator import Family
from strategies.parents import Parent

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")
SCALES = st.floats(-2, 3)


def constant(value: float) -> Weights:
    return {name: np.full(shape, value, np.float32) for name, shape in SPEC.shapes.items()}


def random_weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(s, np.float32) for name, s in SPEC.shapes.items()}


def family(
    operator: TaskArithmeticCrossover, parents: list[Weights], ancestor: Weights | None
) -> Family:
    known = [Parent(f"p{i}", SPEC, weights) for i, weights in enumerate(parents)]
    return family_of(operator, known, [0.0] * len(known), ancestor)


def cross(
    operator: TaskArithmeticCrossover, parents: list[Weights], ancestor: Weights, seed: int = 0
) -> Weights:
    return operator.cross(family(operator, parents, ancestor), np.random.default_rng(seed))


def test_numbers_by_hand() -> None:
    # 10 + 1.5 * ((13 - 10) + (9 - 10)) / 2 = 11.5; the formula of the paper with lambda 0.75
    operator = TaskArithmeticCrossover(low=1.5, high=1.5)
    child = cross(operator, [constant(13), constant(9)], constant(10))
    assert list(child) == list(SPEC.shapes)
    for tensor in child.values():
        assert (tensor == 11.5).all()


def test_three_parents_count_a_third_each() -> None:
    operator = TaskArithmeticCrossover(low=2, high=2, n_parents=3)
    child = cross(operator, [constant(1), constant(2), constant(6)], constant(1))
    for tensor in child.values():  # 1 + 2 * (0 + 1 + 5) / 3
        np.testing.assert_allclose(tensor, 5, rtol=1e-6)


@given(seed=st.integers(0, 50), shares=st.sampled_from(["equal", "random"]))
def test_scale_zero_gives_the_ancestor(seed: int, shares: str) -> None:
    operator = TaskArithmeticCrossover(0, 0, shares)  # type: ignore[arg-type]
    ancestor = random_weights(seed)
    child = cross(operator, [random_weights(seed + 100), random_weights(seed + 200)], ancestor)
    assert all(np.array_equal(child[name], ancestor[name]) for name in SPEC.shapes)


@given(seed=st.integers(0, 50), n_parents=st.integers(2, 4))
def test_scale_one_gives_the_average_of_the_parents(seed: int, n_parents: int) -> None:
    operator = TaskArithmeticCrossover(1, 1, n_parents=n_parents)
    parents = [random_weights(seed + 100 * i) for i in range(1, n_parents + 1)]
    child = cross(operator, parents, random_weights(seed))
    for name in SPEC.shapes:
        expected = np.mean([parent[name] for parent in parents], axis=0, dtype=np.float64)
        np.testing.assert_allclose(child[name], expected, rtol=1e-6, atol=1e-6)


@given(scale=SCALES, seed=st.integers(0, 50))
def test_the_change_grows_with_the_scale(scale: float, seed: int) -> None:
    parents, ancestor = [random_weights(seed + 100), random_weights(seed + 200)], random_weights(0)
    once = cross(TaskArithmeticCrossover(1, 1), parents, ancestor)
    scaled = cross(TaskArithmeticCrossover(scale, scale), parents, ancestor)
    for name in SPEC.shapes:
        expected = ancestor[name] + scale * (once[name].astype(np.float64) - ancestor[name])
        np.testing.assert_allclose(scaled[name], expected, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 50))
def test_identical_parents_give_that_parent_for_scale_one(seed: int) -> None:
    parent = random_weights(seed)
    operator = TaskArithmeticCrossover(1, 1, "random", n_parents=3)
    child = cross(operator, [parent] * 3, random_weights(seed + 1), seed)
    for name in SPEC.shapes:
        np.testing.assert_allclose(child[name], parent[name], rtol=1e-6)


def test_scales_are_drawn_evenly_once_per_child() -> None:
    operator = TaskArithmeticCrossover()
    given_parents = family(operator, [constant(3), constant(5)], constant(0))
    rng, drawn = np.random.default_rng(0), []
    for _ in range(1000):
        child = operator.cross(given_parents, rng)
        values = np.concatenate([tensor.ravel() for tensor in child.values()])
        assert np.ptp(values) == 0
        drawn.append(values[0] / 4)
    assert 0.8 - 1e-6 <= min(drawn) < 0.805
    assert 1.195 < max(drawn) <= 1.2 + 1e-6
    # Five standard errors of a uniform distribution of width 0.4.
    assert np.mean(drawn) == pytest.approx(1.0, abs=5 * 0.4 / np.sqrt(12 * 1000))


def test_random_shares_are_drawn_evenly_and_sum_to_one() -> None:
    operator = TaskArithmeticCrossover(1, 1, "random", n_parents=3)
    parents = [constant(1), constant(0), constant(0)]
    rng = np.random.default_rng(0)
    given_parents = family(operator, parents, constant(0))
    first = [operator.cross(given_parents, rng)["network.0.bias"][0] for _ in range(2000)]
    # Evenly on the triangle: each share is Beta(1, 2), mean 1/3, variance 1/18.
    assert np.mean(first) == pytest.approx(1 / 3, abs=5 * np.sqrt(1 / 18 / 2000))
    assert np.var(first) == pytest.approx(1 / 18, rel=0.15)
    child = cross(operator, [constant(4)] * 3, constant(0))
    np.testing.assert_allclose(child["network.0.bias"], 4, rtol=1e-6)


def test_parents_without_a_common_ancestor_are_refused() -> None:
    with pytest.raises(NeedError, match=r"task_arithmetic needs .*common ancestor.*p0 and p1"):
        family(TaskArithmeticCrossover(), [constant(1), constant(2)], None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"low": 2.0, "high": 1.0}, r"low \(2\) must not be above high \(1\)"),
        ({"high": float("inf")}, "high must be a finite number, not inf"),
        ({"shares": "even"}, "shares must be 'equal' or 'random', not 'even'"),
        ({"n_parents": 1}, "n_parents must be a whole number of at least 2, not 1"),
    ],
)
def test_parameters_outside_their_range_are_refused(
    params: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TaskArithmeticCrossover(**params)  # type: ignore[arg-type]
