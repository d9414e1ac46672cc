from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from populations.network import NetworkSpec, Weights
from strategies.crossover import otfusion
from strategies.crossover.otfusion import OTFusionCrossover, transport_plan
from strategies.errors import NeedError
from strategies.families import family_of
from strategies.forward import q_values
from strategies.parents import Parent
from strategies.permutation import permute_units

PLAIN = NetworkSpec((3,), (6, 5), 2)
DEEP = NetworkSpec((3,), (7, 5), 2, norm="layer", dropout_slots=True)
SPECS = [PLAIN, DEEP, NetworkSpec((4,), (), 2), NetworkSpec((2,), (49,), 3)]


def random_weights(spec: NetworkSpec, seed: int, dead: int = 0) -> Weights:
    """Return random weights; the first units of the first hidden layer never respond."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.standard_normal(s).astype(np.float32) for name, s in spec.shapes.items()}
    block = spec.blocks[0]
    weights[f"{block.norm}.bias" if block.norm else block.bias][:dead] -= np.float32(100)
    return weights


def parent(spec: NetworkSpec, weights: Weights, name: str) -> Parent:
    states = np.random.default_rng(99).standard_normal((60, spec.n_inputs)).astype(np.float32)
    return Parent(name, spec, weights, states)


def cross(a: Parent, b: Parent, share: float | None = None, seed: int = 0) -> Weights:
    operator = OTFusionCrossover() if share is None else OTFusionCrossover(share, share)
    return operator.cross(family_of(operator, [a, b], [0.0, 0.0]), np.random.default_rng(seed))


def doubled(spec: NetworkSpec, weights: Weights) -> tuple[NetworkSpec, Weights]:
    """Return the same function with two copies of every unit, which its readers share."""
    wide = NetworkSpec(
        spec.observation_shape,
        tuple(2 * width for width in spec.hidden),
        spec.n_actions,
        spec.norm,
        spec.dropout_slots,
    )
    copies = dict(weights)
    for layer in spec.units:
        for name, axis in layer.incoming:
            copies[name] = copies[name].repeat(2, axis=axis)
        for name, axis in layer.outgoing:
            copies[name] = copies[name].repeat(2, axis=axis) / np.float32(2)
    return wide, copies


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_permuted_copy_of_the_first_parent_gives_it_exactly(spec: NetworkSpec, seed: int) -> None:
    weights = random_weights(spec, seed, dead=2 if spec.hidden else 0)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(layer.n_units) for layer in spec.units]
    copy = permute_units(spec, weights, orders)
    child = cross(parent(spec, weights, "a"), parent(spec, copy, "b"))
    assert list(child) == list(spec.shapes)
    for name, tensor in child.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, weights[name])


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_wider_parent_of_the_same_function_gives_the_first_one(spec: NetworkSpec) -> None:
    weights = random_weights(spec, 0)
    a, b = parent(spec, weights, "a"), parent(*doubled(spec, weights), "b")
    np.testing.assert_allclose(
        q_values(b.spec, b.weights, b.states), q_values(spec, weights, a.states), atol=1e-4
    )
    for name, tensor in cross(a, b, share=0.2).items():
        np.testing.assert_array_equal(tensor, weights[name])


@pytest.mark.parametrize("spec", [PLAIN, DEEP], ids=["plain", "norm"])
def test_a_narrower_parent_of_the_same_function_gives_the_first_one(spec: NetworkSpec) -> None:
    weights = random_weights(spec, 0)
    wide, copies = doubled(spec, weights)
    for name, tensor in cross(parent(wide, copies, "a"), parent(spec, weights, "b"), 0.2).items():
        np.testing.assert_array_equal(tensor, copies[name])


def test_units_that_come_together_are_averaged_and_what_they_contribute_is_added_up() -> None:
    narrow, wide = NetworkSpec((1,), (1,), 1), NetworkSpec((1,), (2,), 1)
    a = dict(zip(narrow.shapes, ([[1]], [1], [[1]], [1]), strict=True))
    b = dict(zip(wide.shapes, ([[2], [4]], [0, 1], [[5, 7]], [3]), strict=True))
    first, second = (
        parent(spec, {name: np.array(each, np.float32) for name, each in values.items()}, "p")
        for spec, values in ((narrow, a), (wide, b))
    )
    child = cross(first, second, share=0.5)
    # B on A's unit: weight (2 + 4) / 2, bias (0 + 1) / 2, read with 5 + 7.
    expected = [[[(1 + 3) / 2]], [(1 + 0.5) / 2], [[(1 + 12) / 2]], [(1 + 3) / 2]]
    for found, numbers in zip(child.values(), expected, strict=True):
        np.testing.assert_allclose(found, numbers)
    # A on either unit of B: each carries the unit, and half of what is read of it.
    child = cross(second, first, share=0.0)
    expected = [[[1], [1]], [1, 1], [[0.5, 0.5]], [1]]
    for found, numbers in zip(child.values(), expected, strict=True):
        np.testing.assert_allclose(found, numbers)


def test_units_are_matched_by_how_they_respond() -> None:
    # B's units are A's in reverse with other readers, so that only responses can tell.
    spec = NetworkSpec((1,), (2,), 1)
    a = parent(spec, weights_of(spec, [[1], [-1]], [0, 0], [[1, 2]], [0]), "a")
    b = parent(spec, weights_of(spec, [[-1], [1]], [0, 0], [[5, 9]], [0]), "b")
    child = cross(a, b, share=0.5)
    np.testing.assert_array_equal(child["network.0.weight"], [[1], [-1]])
    np.testing.assert_array_equal(child["network.2.weight"], [[5, 3.5]])


def weights_of(spec: NetworkSpec, *tensors: Any) -> Weights:
    pairs = zip(spec.shapes, tensors, strict=True)
    return {name: np.array(each, np.float32) for name, each in pairs}


# transport


@pytest.mark.parametrize("copies", [0, 4], ids=["program", "assignment"])
@pytest.mark.parametrize(("m", "n"), [(3, 3), (2, 3), (4, 2), (3, 4)])
def test_no_other_transport_is_cheaper(
    m: int, n: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otfusion, "COPIES", copies)
    cost = np.random.default_rng(m * n).random((m, n))
    plan = transport_plan(cost)
    assert (plan >= 0).all()
    np.testing.assert_allclose(plan.sum(axis=1), 1 / m, rtol=1e-12)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / n, rtol=1e-12)
    # Some optimal plan moves whole multiples of 1 / lcm: try all of them.
    pieces = int(np.lcm(m, n))
    rows = [
        row
        for row in itertools.product(range(pieces // n + 1), repeat=n)
        if sum(row) == pieces // m
    ]
    cheapest = min(
        float((np.array(moved) * cost).sum()) / pieces
        for moved in itertools.product(rows, repeat=m)
        if (np.sum(moved, axis=0) == pieces // n).all()
    )
    assert float((plan * cost).sum()) == pytest.approx(cheapest, rel=1e-9)


@pytest.mark.parametrize(("m", "n"), [(16, 16), (8, 24), (12, 16), (13, 14), (20, 33)])
def test_transport_is_that_of_pot(m: int, n: int) -> None:
    ot = pytest.importorskip("ot")
    cost = np.random.default_rng(0).random((m, n))
    expected = ot.emd(np.full(m, 1 / m), np.full(n, 1 / n), cost)
    np.testing.assert_allclose(transport_plan(cost), expected, atol=1e-9)


# refusals


@pytest.mark.parametrize(
    "other",
    [
        NetworkSpec((3,), (6,), 2),
        NetworkSpec((3,), (6, 5), 2, norm="layer"),
        NetworkSpec((3,), (6, 5), 4),
        NetworkSpec((4,), (6, 5), 2),
    ],
    ids=["depth", "norm", "actions", "inputs"],
)
def test_parents_that_differ_in_more_than_widths_are_refused(other: NetworkSpec) -> None:
    a, b = (
        parent(spec, random_weights(spec, 0), name)
        for spec, name in ((PLAIN, "one"), (other, "two"))
    )
    with pytest.raises(NeedError, match=r"otfusion needs .* but for widths, but two is .* one is"):
        cross(a, b)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"low": -0.1}, r"low must be a number in \[0, 1\]"),
        ({"high": 1.1}, r"high must be a number in \[0, 1\]"),
        ({"low": 0.6, "high": 0.5}, r"low \(0.6\) must not be above high \(0.5\)"),
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OTFusionCrossover(**params)
