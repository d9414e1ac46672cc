from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.crossover import ModelStockCrossover
from strategies.errors import NeedError
from strategies.families import family_of
from strategies.parents import Parent

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")
POINT = NetworkSpec((2,), (), 1)  # one layer of three numbers


def random_weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(s, np.float32) for name, s in SPEC.shapes.items()}


def point(x: float, y: float, z: float) -> Weights:
    weight, bias = np.array([[x, y]], np.float32), np.array([z], np.float32)
    return {"network.0.weight": weight, "network.0.bias": bias}


def cross(parents: list[Weights], ancestor: Weights | None, spec: NetworkSpec = SPEC) -> Weights:
    operator = ModelStockCrossover(len(parents))
    known = [Parent(f"p{i}", spec, weights) for i, weights in enumerate(parents)]
    family = family_of(operator, known, [0.0] * len(known), ancestor)
    return operator.cross(family, np.random.default_rng(0))


def numbers(weights: Weights) -> NDArray[np.float32]:
    return np.concatenate([weights["network.0.weight"][0], weights["network.0.bias"]])


def test_numbers_by_hand_for_two_parents() -> None:
    # Task vectors (2, 0, 0) and (3, 0, 3), mean (2.5, 0, 1.5): c = 1 / sqrt(2)
    child = cross([point(3, 1, 1), point(4, 1, 4)], point(1, 1, 1), POINT)
    ratio = 2 / (1 + np.sqrt(2))
    np.testing.assert_allclose(numbers(child), [1 + 2.5 * ratio, 1, 1 + 1.5 * ratio], rtol=1e-6)


def test_numbers_by_hand_for_three_parents() -> None:
    # Pairwise cosines 1/2 each: t = 1.5 / (1 + 1) = 0.75 of the way to (2, 2, 2) / 3
    parents = [point(1, 1, 0), point(1, 0, 1), point(0, 1, 1)]
    child = cross(parents, point(0, 0, 0), POINT)
    np.testing.assert_allclose(numbers(child), [0.5, 0.5, 0.5], rtol=1e-6)


def test_the_cosine_of_more_parents_is_the_mean_over_pairs() -> None:
    # Cosines 1, 0 and 0: c = 1/3, t = 1 / (1 + 2/3) = 0.6; the lengths do not count
    parents = [point(1, 0, 0), point(5, 0, 0), point(0, 3, 0)]
    child = cross(parents, point(0, 0, 0), POINT)
    np.testing.assert_allclose(numbers(child), [0.6 * 2, 0.6 * 1, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "parents",
    [
        [point(1, 0, 0), point(0, 1, 0)],  # unrelated: t = 0
        [point(1, 0, 0), point(-1, 1, 0)],  # disagreeing: t would be -2 c / (1 + c) < 0
        [point(1, 0, 0), point(-1, 0, 0)],  # opposite: the formula divides by zero
        [point(0, 0, 0), point(1, 2, 3)],  # one has not changed and has no direction
        [point(0, 0, 0), point(0, 0, 0)],
    ],
)
def test_parents_that_do_not_agree_give_the_ancestor(parents: list[Weights]) -> None:
    assert (numbers(cross(parents, point(0, 0, 0), POINT)) == 0).all()


def test_every_layer_has_its_own_ratio_for_weight_bias_and_norm_together() -> None:
    ancestor = random_weights(0)
    parents = [dict(ancestor), dict(ancestor)]
    first, second, output = SPEC.blocks
    for name in first.tensors:  # the same change in both parents
        for parent in parents:
            parent[name] = ancestor[name] + 1
    assert second.norm is not None
    # One parent changes the weight of the second layer, the other its norm: unrelated.
    parents[0][second.weight] = ancestor[second.weight] + 1
    parents[1][f"{second.norm}.bias"] = ancestor[f"{second.norm}.bias"] + 1
    # In the output layer both change one bias, and one of them a weight as well: c = 1 / sqrt(2).
    for parent in parents:
        parent[output.bias] = ancestor[output.bias] + np.array([1, 0], np.float32)
    changed = ancestor[output.weight].copy()
    changed[1, 2] += 1
    parents[1][output.weight] = changed

    child = cross(parents, ancestor)
    for name in first.tensors:
        np.testing.assert_allclose(child[name], ancestor[name] + 1, rtol=1e-6)
    for name in second.tensors:
        np.testing.assert_array_equal(child[name], ancestor[name])
    ratio = 2 / (1 + np.sqrt(2))
    change = child[output.weight] - ancestor[output.weight]
    assert change[1, 2] == pytest.approx(ratio / 2, abs=1e-6)
    assert np.count_nonzero(change) == 1
    np.testing.assert_allclose(
        child[output.bias] - ancestor[output.bias], [ratio, 0], rtol=1e-5, atol=1e-7
    )


@given(seed=st.integers(0, 50), n_parents=st.integers(2, 4))
def test_identical_parents_give_that_parent(seed: int, n_parents: int) -> None:
    parent = random_weights(seed)
    child = cross([parent] * n_parents, random_weights(seed + 1))
    for name in SPEC.shapes:
        np.testing.assert_allclose(child[name], parent[name], rtol=1e-6, atol=1e-7)


@given(seed=st.integers(0, 50), size=st.floats(0.01, 100))
def test_the_child_moves_with_the_size_of_all_changes(seed: int, size: float) -> None:
    # The ratio depends on angles only: twice the changes, twice the change of the child.
    changes = [random_weights(seed), random_weights(seed + 100)]
    shared = random_weights(seed + 200)
    zero = {name: np.zeros(shape, np.float32) for name, shape in SPEC.shapes.items()}
    parents = [{name: shared[name] + change[name] for name in SPEC.shapes} for change in changes]
    larger = [{name: np.float32(size) * parent[name] for name in SPEC.shapes} for parent in parents]
    once, scaled = cross(parents, zero), cross(larger, zero)
    for name in SPEC.shapes:
        np.testing.assert_allclose(scaled[name], size * once[name], rtol=1e-4, atol=1e-5 * size)


@given(seed=st.integers(0, 50), n_parents=st.integers(2, 4))
def test_the_child_lies_between_the_ancestor_and_the_average(seed: int, n_parents: int) -> None:
    parents = [random_weights(seed + 100 * i) for i in range(n_parents)]
    ancestor = random_weights(seed + 1000)
    child = cross(parents, ancestor)
    for block in SPEC.blocks:
        moved = np.concatenate([(child[n] - ancestor[n]).ravel() for n in block.tensors])
        way = np.concatenate(
            [(sum(p[n] for p in parents) / n_parents - ancestor[n]).ravel() for n in block.tensors]
        )
        ratio = (moved @ way) / (way @ way)
        assert -1e-5 <= ratio <= 1 + 1e-5
        np.testing.assert_allclose(moved, ratio * way, atol=1e-5)


def test_the_order_of_the_parents_and_the_random_stream_do_not_matter() -> None:
    parents, ancestor = [random_weights(1), random_weights(2)], random_weights(0)
    one, other = cross(parents, ancestor), cross(parents[::-1], ancestor)
    for name in SPEC.shapes:
        np.testing.assert_array_equal(one[name], other[name])


def test_parents_without_a_common_ancestor_are_refused() -> None:
    with pytest.raises(NeedError, match=r"model_stock needs .*common ancestor.*p0 and p1"):
        cross([random_weights(0), random_weights(1)], None)


def test_fewer_than_two_parents_are_refused() -> None:
    with pytest.raises(ValueError, match="n_parents must be a whole number of at least 2, not 1"):
        ModelStockCrossover(1)
