from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import geometric_slerp

from populations.network import Block, NetworkSpec, Weights
from strategies.crossover import SlerpCrossover
from strategies.operator import Family
from strategies.testing import random_family

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")
seeds = st.integers(0, 1000)
shares = st.floats(0, 1)


def layer(weights: Weights, block: Block) -> NDArray[np.float64]:
    """Return weight and bias of a Linear as one vector."""
    return np.append(weights[block.weight], weights[block.bias]).astype(np.float64)


def equal_length_family(seed: int) -> Family:
    """Make random parents whose layers all have length 1."""
    parents = []
    for weights in random_family(SPEC, 2, seed):
        scaled = dict(weights)
        for block in SPEC.blocks:
            for name in (block.weight, block.bias):
                length = np.float32(np.linalg.norm(layer(weights, block)))
                scaled[name] = weights[name] / length
        parents.append(scaled)
    return Family(parents, SPEC, ["a", "b"], [0.0, 0.0])


def cross(family: Family, low: float, high: float, seed: int = 0) -> Weights:
    return SlerpCrossover(low, high).cross(family, np.random.default_rng(seed))


@given(seed=seeds, t=shares)
def test_layers_of_one_length_move_along_the_great_circle_as_in_scipy(seed: int, t: float) -> None:
    family = equal_length_family(seed)
    child = cross(family, t, t)
    for block in SPEC.blocks:
        first, second = ((vector := layer(each, block)) / np.linalg.norm(vector) for each in family)
        expected = geometric_slerp(second, first, t)  # its t is the share of the end
        np.testing.assert_allclose(layer(child, block), expected, atol=1e-5)


@given(seed=seeds, t=shares)
def test_layers_of_one_length_keep_it(seed: int, t: float) -> None:
    child = cross(equal_length_family(seed), t, t)
    for block in SPEC.blocks:
        assert np.linalg.norm(layer(child, block)) == pytest.approx(1, rel=1e-5)


@given(seed=seeds, t=shares)
def test_layers_of_any_length_follow_mergekit(seed: int, t: float) -> None:
    module: Any = pytest.importorskip("mergekit.merge_methods.slerp", exc_type=ImportError)
    torch: Any = pytest.importorskip("torch")
    family = random_family(SPEC, 2, seed)
    child = cross(family, t, t)
    for block in SPEC.blocks:
        first, second = (torch.from_numpy(layer(each, block))[None] for each in family)
        expected = module.slerp(torch.tensor([1 - t]), first, second)[0]
        np.testing.assert_allclose(layer(child, block), expected.numpy(), rtol=1e-5, atol=1e-5)


@given(seed=seeds, t=shares)
def test_normalizations_are_interpolated_linearly(seed: int, t: float) -> None:
    family = random_family(SPEC, 2, seed)
    child = cross(family, t, t)
    norms = [name for block in SPEC.blocks for name in block.tensors[2:]]
    assert len(norms) == 4
    for name in norms:
        expected = t * family[0][name] + (1 - t) * family[1][name]
        np.testing.assert_allclose(child[name], expected, atol=1e-6)


@pytest.mark.parametrize(("t", "expected"), [(1.0, 0), (0.0, 1)])
def test_the_ends_are_exactly_a_parent(t: float, expected: int) -> None:
    family = random_family(SPEC, 2, 0)
    child = cross(family, t, t)
    assert all(np.array_equal(child[name], family[expected][name]) for name in SPEC.shapes)


@pytest.mark.parametrize(("t", "expected"), [(0.6, 0), (0.5, 0), (0.4, 1)])
def test_opposite_layers_come_from_the_parent_with_the_larger_share(
    t: float, expected: int
) -> None:
    (parent,) = random_family(SPEC, 1, 0)
    opposite = {name: -tensor for name, tensor in parent.items()}
    family = Family([parent, opposite], SPEC, ["a", "b"], [0.0, 0.0])
    child = cross(family, t, t)
    for name in SPEC.matrices:
        assert np.array_equal(child[name], family[expected][name])


def test_one_share_is_drawn_per_child_evenly() -> None:
    # Layers at a right angle: the first tensor is sin(t pi/2), the second cos(t pi/2).
    spec = NetworkSpec((1,), (1,), 1)
    first = {name: np.zeros(shape, np.float32) for name, shape in spec.shapes.items()}
    second = {name: tensor.copy() for name, tensor in first.items()}
    for block in spec.blocks:
        first[block.weight][:] = second[block.bias][:] = 1
    family, rng = Family([first, second], spec, ["a", "b"], [0.0, 0.0]), np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        child = SlerpCrossover(0.2, 0.6).cross(family, rng)
        angles = [np.arctan2(child[b.weight].item(), child[b.bias].item()) for b in spec.blocks]
        assert angles[0] == pytest.approx(angles[1])
        drawn.append(angles[0] / (np.pi / 2))
    assert 0.2 - 1e-6 <= min(drawn) < 0.205
    assert 0.595 < max(drawn) <= 0.6 + 1e-6
    assert np.mean(drawn) == pytest.approx(0.4, abs=0.012)  # 4.6 standard errors


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (-0.1, 0.5, r"low must be a number in \[0, 1\], not -0.1"),
        (0.5, 1.1, r"high must be a number in \[0, 1\], not 1.1"),
        (0.8, 0.2, r"low \(0\.8\) must not be above high \(0\.2\)"),
    ],
)
def test_bounds_outside_the_parents_or_in_the_wrong_order_are_refused(
    low: float, high: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SlerpCrossover(low, high)
