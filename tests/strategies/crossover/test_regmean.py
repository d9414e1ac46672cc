from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from populations.network import NetworkSpec, Weights
from strategies.crossover.regmean import RIDGE, RegMeanCrossover
from strategies.families import family_of
from strategies.forward import hidden_activations
from strategies.parents import Parent

DEEP = NetworkSpec((3,), (6, 4), 2, norm="layer")
PLAIN = NetworkSpec((3,), (6, 4), 2)


def make_parents(spec: NetworkSpec, n_parents: int = 2, dead: int = 0) -> list[Parent]:
    """Return random parents whose first hidden layer starts with dead units."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((50, spec.n_inputs)).astype(np.float32)
    parents = []
    for index in range(n_parents):
        weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in spec.shapes.items()}
        block = spec.blocks[0]
        weights[f"{block.norm}.bias" if block.norm else block.bias][:dead] = -100
        parents.append(Parent(f"p{index}", spec, weights, states))
    return parents


def cross(operator: RegMeanCrossover, parents: list[Parent]) -> Weights:
    family = family_of(operator, parents, [0.0] * len(parents))
    return operator.cross(family, np.random.default_rng(0))


def shares_of(first: float, n_parents: int) -> list[float]:
    """Return the shares that the generator of :func:`cross` gives: a flat Dirichlet split."""
    rng = np.random.default_rng(0)
    rng.uniform()
    return [first, *((1 - first) * rng.dirichlet(np.ones(n_parents - 1)))]


def inputs_of(parent: Parent, layer: int) -> np.ndarray:
    """What enters a Linear, with a 1 behind it, in float64."""
    before = [parent.states, *hidden_activations(parent.spec, parent.weights, parent.states)]
    x = before[layer].astype(np.float64)
    return np.column_stack([x, np.ones(len(x))])


def layer_of(weights: Weights, spec: NetworkSpec, layer: int) -> np.ndarray:
    block = spec.blocks[layer]
    return np.column_stack([weights[block.weight], weights[block.bias]]).astype(np.float64)


@pytest.mark.parametrize("dead", [0, 2])
@pytest.mark.parametrize("spec", [PLAIN, DEEP], ids=["plain", "norm"])
def test_the_layers_are_the_least_squares_fit_to_those_of_the_parents(
    spec: NetworkSpec, dead: int
) -> None:
    parents = make_parents(spec, 3, dead)
    shares = shares_of(0.5, 3)
    child = cross(RegMeanCrossover(alpha=1.0, low=0.5, high=0.5, n_parents=3), parents)
    for layer in range(len(spec.blocks)):
        x = [inputs_of(parent, layer) for parent in parents]
        w = [layer_of(parent.weights, spec, layer) for parent in parents]
        average = sum(s * each for s, each in zip(shares, w, strict=True))
        scale = sum(s * np.square(each).mean(axis=0) for s, each in zip(shares, x, strict=True))
        ridge = np.diag(np.sqrt(RIDGE * np.where(scale > 0, scale, 1)))
        rows = [np.sqrt(s / len(each)) for s, each in zip(shares, x, strict=True)]
        a = np.vstack([*(r * each for r, each in zip(rows, x, strict=True)), ridge])
        b = [r * each @ own.T for r, each, own in zip(rows, x, w, strict=True)]
        expected = np.linalg.lstsq(a, np.vstack([*b, ridge @ average.T]), rcond=None)[0].T
        found = layer_of(child, spec, layer)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_without_entries_off_the_diagonal_columns_are_averaged_by_the_size_of_inputs() -> None:
    parents = make_parents(PLAIN)
    child = cross(RegMeanCrossover(alpha=0.0, low=0.3, high=0.3), parents)
    for layer in range(3):
        x = [np.square(inputs_of(parent, layer)).mean(axis=0) for parent in parents]
        w = [layer_of(parent.weights, PLAIN, layer) for parent in parents]
        average = 0.3 * w[0] + 0.7 * w[1]
        by_size = (0.3 * x[0] * w[0] + 0.7 * x[1] * w[1]) / (0.3 * x[0] + 0.7 * x[1])
        expected = (by_size + RIDGE * average) / (1 + RIDGE)
        np.testing.assert_allclose(layer_of(child, PLAIN, layer), expected, rtol=1e-4, atol=1e-5)


def test_layers_that_read_the_same_inputs_are_averaged() -> None:
    # The first layers of all parents read the states.
    parents = make_parents(DEEP)
    child = cross(RegMeanCrossover(low=0.3, high=0.3), parents)
    for name in DEEP.blocks[0].tensors:
        expected = 0.3 * parents[0].weights[name] + 0.7 * parents[1].weights[name]
        np.testing.assert_allclose(child[name], expected, rtol=1e-5, atol=1e-6)


def test_normalizations_are_averaged_by_the_shares() -> None:
    parents = make_parents(DEEP, 3)
    child = cross(RegMeanCrossover(low=0.6, high=0.6, n_parents=3), parents)
    for name in ("network.1.weight", "network.4.bias"):
        pairs = zip(shares_of(0.6, 3), parents, strict=True)
        expected = sum(share * parent.weights[name] for share, parent in pairs)
        np.testing.assert_allclose(child[name], expected, rtol=1e-5)


def test_where_all_parents_have_dead_units_their_readers_are_averaged() -> None:
    parents = make_parents(PLAIN, dead=2)
    child = cross(RegMeanCrossover(low=0.3, high=0.3), parents)
    first, second = (parent.weights["network.2.weight"][:, :2] for parent in parents)
    np.testing.assert_allclose(
        child["network.2.weight"][:, :2], 0.3 * first + 0.7 * second, rtol=1e-5
    )


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_identical_parents_with_dead_units_give_that_parent_exactly(alpha: float) -> None:
    parent = make_parents(PLAIN, dead=4)[0]
    child = cross(RegMeanCrossover(alpha, n_parents=3), [parent] * 3)
    for name in PLAIN.shapes:
        np.testing.assert_array_equal(child[name], parent.weights[name])


def test_a_share_of_one_gives_the_first_parent_exactly() -> None:
    parents = make_parents(DEEP, dead=2)
    child = cross(RegMeanCrossover(low=1.0, high=1.0), parents)
    for name in DEEP.shapes:
        np.testing.assert_array_equal(child[name], parents[0].weights[name])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 1.1}, r"alpha must be a number in \[0, 1\]"),
        ({"low": -0.1}, r"low must be a number in \[0, 1\]"),
        ({"low": 0.6, "high": 0.5}, r"low \(0.6\) must not be above high \(0.5\)"),
        ({"n_parents": 1}, "n_parents must be a whole number of at least 2"),
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegMeanCrossover(**params)
