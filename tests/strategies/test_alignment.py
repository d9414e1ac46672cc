from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.alignment import align_parents, match_activations, match_weights
from strategies.errors import AlignmentError
from strategies.forward import q_values
from strategies.parents import Parent
from strategies.permutation import permute_units

specs = st.builds(
    NetworkSpec,
    observation_shape=st.tuples(st.integers(1, 5)),
    hidden=st.lists(st.integers(1, 7), max_size=3).map(tuple),
    n_actions=st.integers(1, 4),
    norm=st.sampled_from(["none", "layer"]),
    dropout_slots=st.booleans(),
)
seeds = st.integers(0, 2**32)
DEEP = NetworkSpec((5,), (16, 12), 3, norm="layer")
PLAIN = NetworkSpec((4,), (8, 8), 2)


def random_orders(spec: NetworkSpec, seed: int) -> list[NDArray[np.intp]]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(layer.n_units) for layer in spec.units]


def some_states(spec: NetworkSpec, seed: int = 0, n: int = 200) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, spec.n_inputs), dtype=np.float32)


def some(spec: NetworkSpec, n: int, seed: int) -> list[Weights]:
    """Return unrelated networks, every tensor drawn from N(0, 1)."""
    rng = np.random.default_rng(seed)
    return [
        {name: rng.standard_normal(shape, np.float32) for name, shape in spec.shapes.items()}
        for _ in range(n)
    ]


def one(spec: NetworkSpec, seed: int) -> Weights:
    return some(spec, 1, seed)[0]


def parent(
    spec: NetworkSpec, weights: Weights, states: Any = "some", basis: str = "", id: str = "p"
) -> Parent:
    given = some_states(spec) if isinstance(states, str) else states
    return Parent(id, spec, weights, given, basis)


def align(spec: NetworkSpec, networks: Any, mode: Any, states: Any = "some") -> list[Weights]:
    """Return the weights of strangers after alignment."""
    parents = [parent(spec, weights, states) for weights in networks]
    return [aligned.weights for aligned in align_parents(parents, mode)]


def assert_equal(a: Weights, b: Weights) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@given(spec=specs, seed=seeds)
@settings(deadline=None, max_examples=60)
def test_permuting_units_keeps_the_q_values(spec: NetworkSpec, seed: int) -> None:
    weights, states = one(spec, seed), some_states(spec, n=16)
    permuted = permute_units(spec, weights, random_orders(spec, seed))
    spec.check(permuted, "permuted")
    before, after = (q_values(spec, each, states) for each in (weights, permuted))
    scale = 1 + float(np.abs(before).max())
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * scale)


@given(spec=specs, seed=seeds)
@settings(deadline=None, max_examples=30)
def test_the_inverse_permutation_gives_the_weights_back(spec: NetworkSpec, seed: int) -> None:
    orders = random_orders(spec, seed)
    there = permute_units(spec, one(spec, seed), orders)
    assert_equal(permute_units(spec, there, [np.argsort(o) for o in orders]), one(spec, seed))


def test_a_unit_moves_with_its_row_its_bias_and_its_column() -> None:
    spec = NetworkSpec((2,), (3,), 1)
    weights = {
        "network.0.weight": np.array([[0, 0], [1, 1], [2, 2]], np.float32),
        "network.0.bias": np.array([0, 10, 20], np.float32),
        "network.2.weight": np.array([[0, 100, 200]], np.float32),
        "network.2.bias": np.array([7], np.float32),
    }
    permuted = permute_units(spec, weights, [np.array([2, 0, 1])])
    assert permuted["network.0.weight"].tolist() == [[2, 2], [0, 0], [1, 1]]
    assert permuted["network.0.bias"].tolist() == [20, 0, 10]
    assert permuted["network.2.weight"].tolist() == [[200, 0, 100]]
    assert permuted["network.2.bias"].tolist() == [7]


def test_the_number_of_permutations_is_checked() -> None:
    with pytest.raises(AlignmentError, match="expected 2 permutations, one per hidden layer, not"):
        permute_units(PLAIN, one(PLAIN, 0), [np.arange(8)])


@pytest.mark.parametrize("spec", [PLAIN, DEEP, NetworkSpec((3,), (6, 6, 6), 2)], ids=str)
@pytest.mark.parametrize("mode", ["weights", "activations"])
def test_aligning_a_permuted_copy_recovers_the_original(spec: NetworkSpec, mode: Any) -> None:
    for seed in range(5):
        original = one(spec, seed)
        copy = permute_units(spec, original, random_orders(spec, seed))
        aligned = align(spec, [original, copy], mode)
        assert_equal(aligned[1], original)


@pytest.mark.parametrize("mode", ["weights", "activations"])
def test_aligning_a_noisy_permuted_copy_finds_the_order(mode: Any) -> None:
    rng = np.random.default_rng(0)
    original, orders = one(DEEP, 1), random_orders(DEEP, 1)
    noisy = {
        name: tensor + 0.02 * rng.standard_normal(tensor.shape, dtype=np.float32)
        for name, tensor in original.items()
    }
    copy = permute_units(DEEP, noisy, orders)
    assert_equal(align(DEEP, [original, copy], mode)[1], noisy)


def test_weight_matching_of_one_layer_is_the_best_of_all_orders() -> None:
    spec = NetworkSpec((3,), (5,), 2, norm="layer")
    for seed in range(3):
        a, b = some(spec, 2, seed)
        best = max(
            sum(float(np.sum(a[name] * permuted[name])) for name in spec.shapes)
            for order in itertools.permutations(range(5))
            for permuted in [permute_units(spec, b, [np.array(order)])]
        )
        found = permute_units(spec, b, match_weights(parent(spec, a), parent(spec, b)))
        reached = sum(float(np.sum(a[name] * found[name])) for name in spec.shapes)
        assert reached == pytest.approx(best, rel=1e-5)


def test_weight_matching_leaves_no_layer_to_improve() -> None:
    spec = NetworkSpec((3,), (4, 5), 2)
    a, b = some(spec, 2, 7)
    found = permute_units(spec, b, match_weights(parent(spec, a), parent(spec, b)))
    reached = sum(float(np.sum(a[name] * found[name])) for name in spec.shapes)
    for layer, n_units in enumerate(spec.hidden):
        for order in itertools.permutations(range(n_units)):
            orders = [np.arange(4), np.arange(5)]
            orders[layer] = np.array(order)
            other = permute_units(spec, found, orders)
            product = sum(float(np.sum(a[name] * other[name])) for name in spec.shapes)
            assert product <= reached + 1e-3


def test_weight_matching_notices_biases() -> None:
    spec = NetworkSpec((1,), (2,), 1)
    a = {name: np.ones(shape, np.float32) for name, shape in spec.shapes.items()}
    b = dict(a)
    a["network.0.bias"] = np.array([5, -5], np.float32)
    b["network.0.bias"] = np.array([-5, 5], np.float32)
    assert match_weights(parent(spec, a), parent(spec, b))[0].tolist() == [1, 0]


def test_activation_matching_pairs_units_that_respond_alike() -> None:
    spec = NetworkSpec((2,), (2,), 1)
    a = {name: np.zeros(shape, np.float32) for name, shape in spec.shapes.items()}
    b = dict(a)
    a["network.0.weight"] = np.array([[1, 0], [0, 1]], np.float32)  # unit 0 sees input 0
    b["network.0.weight"] = np.array([[0.1, 3], [2, 0.1]], np.float32)  # unit 1 sees input 0
    assert match_activations(parent(spec, a), parent(spec, b))[0].tolist() == [1, 0]


def test_dead_and_constant_units_are_matched_without_nan() -> None:
    original = dict(one(PLAIN, 2))
    rows, bias = original["network.0.weight"].copy(), original["network.0.bias"].copy()
    bias[0] = -1000  # dead on all states
    rows[1], bias[1] = 0, 3  # constant behind the ReLU
    rows[2], bias[2] = 0, -3  # constant and dead
    original |= {"network.0.weight": rows, "network.0.bias": bias}
    orders = random_orders(PLAIN, 2)
    copy = permute_units(PLAIN, original, orders)
    with np.errstate(all="raise"):
        found = match_activations(parent(PLAIN, original), parent(PLAIN, copy))
    aligned = permute_units(PLAIN, copy, found)
    assert [sorted(order.tolist()) for order in found] == [list(range(8))] * 2
    np.testing.assert_array_equal(aligned["network.0.weight"][0], rows[0])
    np.testing.assert_array_equal(aligned["network.0.weight"][3:], rows[3:])


def test_matching_is_the_identity_where_all_units_are_dead() -> None:
    zeros = {name: np.zeros(shape, np.float32) for name, shape in PLAIN.shapes.items()}
    for order in match_activations(parent(PLAIN, zeros), parent(PLAIN, zeros)):
        assert sorted(order.tolist()) == list(range(8))
    for order in match_weights(parent(PLAIN, zeros), parent(PLAIN, zeros)):
        assert order.tolist() == list(range(8))


def test_a_single_state_is_enough_not_to_fail() -> None:
    a, b = (parent(PLAIN, weights, some_states(PLAIN, n=1)) for weights in some(PLAIN, 2, 0))
    for order in match_activations(a, b):
        assert sorted(order.tolist()) == list(range(8))


def test_none_returns_the_parents_as_they_are() -> None:
    parents = [parent(PLAIN, weights, None) for weights in some(PLAIN, 2, 0)]
    aligned = align_parents(parents, "none")
    assert all(x is y for x, y in zip(aligned, parents, strict=True))


def test_auto_aligns_strangers_by_activations_and_leaves_kin_alone() -> None:
    bases = ("a", "a", "b", "")
    first, kin, stranger, loner = (
        parent(PLAIN, weights, basis=basis)
        for weights, basis in zip(some(PLAIN, 4, 0), bases, strict=True)
    )
    aligned = align_parents([first, kin, stranger, loner], "auto")
    assert aligned[0] is first
    assert aligned[1] is kin
    for before, after in ((stranger, aligned[2]), (loner, aligned[3])):
        orders = match_activations(first, before)
        assert any(order.tolist() != list(range(8)) for order in orders)
        assert_equal(after.weights, permute_units(PLAIN, before.weights, orders))


def test_two_parents_without_a_basis_are_not_kin() -> None:
    a, b = (parent(PLAIN, weights) for weights in some(PLAIN, 2, 0))
    assert align_parents([a, b], "auto")[1] is not b


def test_an_explicit_mode_aligns_kin_as_well() -> None:
    first = parent(PLAIN, one(PLAIN, 0), basis="a")
    shuffled = permute_units(PLAIN, first.weights, random_orders(PLAIN, 5))
    copy = parent(PLAIN, shuffled, None, basis="a")
    assert_equal(align_parents([first, copy], "weights")[1].weights, first.weights)


def test_alignment_does_not_vary() -> None:
    parents = some(DEEP, 2, 0)
    for mode in ("weights", "activations"):
        twice = [align(DEEP, parents, mode) for _ in range(2)]
        assert_equal(twice[0][1], twice[1][1])


def test_networks_without_hidden_layers_and_families_of_none_are_fine() -> None:
    linear = NetworkSpec((4,), (), 2)
    parents = [parent(linear, weights, None) for weights in some(linear, 2, 0)]
    assert align_parents(parents, "activations") == tuple(parents)
    assert align_parents([], "auto") == ()


def test_missing_states_are_explained() -> None:
    a, b = (parent(PLAIN, weights, None) for weights in some(PLAIN, 2, 0))
    with pytest.raises(AlignmentError, match="align='auto' compares activations on states; there"):
        align_parents([a, b], "auto")
    with pytest.raises(AlignmentError, match="align='activations' compares activations on states"):
        align_parents([a, parent(PLAIN, b.weights)], "activations")


def test_parents_of_different_widths_cannot_be_reordered() -> None:
    other = NetworkSpec((4,), (8, 6), 2)
    a = parent(PLAIN, one(PLAIN, 0), id="a")
    b = parent(other, one(other, 0), id="b")
    assert align_parents([a, b], "auto")[1] is b
    for mode in ("weights", "activations"):
        with pytest.raises(AlignmentError, match="units of b cannot be put into the order of a"):
            align_parents([a, b], mode)  # type: ignore[arg-type]  # both are modes


def test_an_unknown_mode_is_explained() -> None:
    wrong: Any = "weight"
    with pytest.raises(AlignmentError, match=r"align must be 'none', .* not 'weight'"):
        align_parents([parent(PLAIN, one(PLAIN, 0))], wrong)
