from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from populations.network import NetworkSpec, Weights
from strategies.crossover import TiesCrossover
from strategies.errors import NeedError
from strategies.families import family_of
from strategies.parents import Parent

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")
LINEAR = NetworkSpec((6,), (), 1)  # one row of six weights, and one bias
BIAS = 7.0


def random_weights(seed: int, spec: NetworkSpec = SPEC) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(s, np.float32) for name, s in spec.shapes.items()}


def row(values: ArrayLike) -> Weights:
    weight = np.asarray([values], np.float32)
    return {"network.0.weight": weight, "network.0.bias": np.array([BIAS], np.float32)}


def cross(
    operator: TiesCrossover,
    parents: list[Weights],
    ancestor: Weights | None,
    spec: NetworkSpec = SPEC,
) -> Weights:
    known = [Parent(f"p{i}", spec, weights) for i, weights in enumerate(parents)]
    family = family_of(operator, known, [0.0] * len(known), ancestor)
    return operator.cross(family, np.random.default_rng(0))


def test_numbers_by_hand() -> None:
    ancestor = np.full(6, 10.0)
    first = np.array([5, -4, 0.5, 1, 3, -0.2])  # 5, -4 and 3 are kept
    second = np.array([1, 3, -2, -0.1, -6, 0.3])  # 3, -2 and -6 are kept
    #   entry    0: only 5;  1: -4 + 3 < 0, -4;  2: only -2;  3: none;  4: 3 - 6 < 0, -6;  5: none
    merged = np.array([5, -4, -2, 0, -6, 0])
    operator = TiesCrossover(density=0.5, low=2, high=2)
    child = cross(operator, [row(ancestor + first), row(ancestor + second)], row(ancestor), LINEAR)
    np.testing.assert_allclose(child["network.0.weight"][0], ancestor + 2 * merged, rtol=1e-6)
    assert child["network.0.bias"] == BIAS


def test_the_majority_is_one_of_mass_and_the_average_is_over_its_members() -> None:
    parents = [row(np.full(6, value)) for value in (1.0, 2.0, -4.0)]
    operator = TiesCrossover(1.0, 1, 1, n_parents=3)
    child = cross(operator, parents, row(np.zeros(6)), LINEAR)
    assert (child["network.0.weight"] == -4).all()  # two to one, but 3 < 4
    parents[2] = row(np.full(6, -2.5))
    child = cross(operator, parents, row(np.zeros(6)), LINEAR)
    assert (child["network.0.weight"] == 1.5).all()  # not (1 + 2) / 3


def test_a_level_election_keeps_the_weight_of_the_ancestor() -> None:
    parents = [row(np.full(6, 3.0 + 1)), row(np.full(6, 3.0 - 1))]
    child = cross(TiesCrossover(1.0), parents, row(np.full(6, 3.0)), LINEAR)
    assert (child["network.0.weight"] == 3).all()


def test_changes_of_equal_magnitude_are_trimmed_or_kept_together() -> None:
    change = np.array([2.0, -1, 1, -1, 0, 0])  # half of six is three, but four are at least 1
    child = cross(TiesCrossover(0.5, 1, 1), [row(change)] * 2, row(np.zeros(6)), LINEAR)
    np.testing.assert_array_equal(child["network.0.weight"][0], change)


@pytest.mark.parametrize(("density", "kept"), [(0.0, 0), (0.01, 1), (0.5, 3), (0.51, 4), (1.0, 6)])
def test_density_is_rounded_up_to_whole_entries(density: float, kept: int) -> None:
    change = np.array([1.0, -2, 3, -4, 5, -6])
    child = cross(TiesCrossover(density, 1, 1), [row(change)] * 2, row(np.zeros(6)), LINEAR)
    expected = np.where(np.abs(change) > 6 - kept, change, 0)
    np.testing.assert_array_equal(child["network.0.weight"][0], expected)


@given(seed=st.integers(0, 50), n_parents=st.integers(2, 4), sign=st.sampled_from([-1, 1]))
def test_with_one_sign_everywhere_and_density_one_it_is_task_arithmetic(
    seed: int, n_parents: int, sign: int
) -> None:
    ancestor = random_weights(seed)
    changes = [random_weights(seed + 100 * i) for i in range(1, n_parents + 1)]
    parents = [
        {name: ancestor[name] + sign * np.abs(change[name]) for name in SPEC.shapes}
        for change in changes
    ]
    child = cross(TiesCrossover(1.0, 1, 1, n_parents=n_parents), parents, ancestor)
    for name in SPEC.shapes:
        expected = np.mean([parent[name] for parent in parents], axis=0, dtype=np.float64)
        np.testing.assert_allclose(child[name], expected, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 50), density=st.floats(0, 1), scale=st.floats(-2, 3))
def test_the_change_grows_with_the_scale_and_is_zero_with_it(
    seed: int, density: float, scale: float
) -> None:
    parents, ancestor = [random_weights(seed + 100), random_weights(seed + 200)], random_weights(0)
    none = cross(TiesCrossover(density, 0, 0), parents, ancestor)
    once = cross(TiesCrossover(density, 1, 1), parents, ancestor)
    scaled = cross(TiesCrossover(density, scale, scale), parents, ancestor)
    for name in SPEC.shapes:
        assert np.array_equal(none[name], ancestor[name])
        expected = ancestor[name] + scale * (once[name].astype(np.float64) - ancestor[name])
        np.testing.assert_allclose(scaled[name], expected, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 50), density=st.floats(0.05, 1))
def test_no_entry_moves_beyond_the_larger_change_or_against_the_election(
    seed: int, density: float
) -> None:
    parents, ancestor = [random_weights(seed + 100), random_weights(seed + 200)], random_weights(0)
    child = cross(TiesCrossover(density, 1, 1, "random"), parents, ancestor)
    for name in SPEC.shapes:
        changes = np.array([parent[name] - ancestor[name] for parent in parents])
        moved = child[name] - ancestor[name]
        assert (moved <= np.maximum(changes.max(axis=0), 0) + 1e-5).all()
        assert (moved >= np.minimum(changes.min(axis=0), 0) - 1e-5).all()
        assert np.count_nonzero(np.abs(moved) > 1e-5) >= 1  # biases and norms keep one, too


def test_identical_parents_give_that_parent_for_density_and_scale_one() -> None:
    parent, ancestor = random_weights(1), random_weights(2)
    child = cross(TiesCrossover(1.0, 1, 1, n_parents=3), [parent] * 3, ancestor)
    trimmed = cross(TiesCrossover(0.5, 1, 1, n_parents=3), [parent] * 3, ancestor)
    for name in SPEC.shapes:
        np.testing.assert_allclose(child[name], parent[name], rtol=1e-6)
        assert np.isclose(trimmed[name], ancestor[name]).sum() == parent[name].size // 2


def test_parents_without_a_common_ancestor_are_refused() -> None:
    with pytest.raises(NeedError, match=r"ties needs .*common ancestor.*p0 and p1"):
        cross(TiesCrossover(), [random_weights(0), random_weights(1)], None)


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan"), True])
def test_a_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(ValueError, match=r"density must be a number in \[0, 1\]"):
        TiesCrossover(density)
