from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import geometric_slerp

from populations.network import Block, NetworkSpec, Weights
from strategies.crossover import NuslerpCrossover
from strategies.operator import Family
from strategies.testing import random_family

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")
seeds = st.integers(0, 1000)
shares = st.floats(0, 1)


def rows(weights: Weights, block: Block) -> NDArray[np.float64]:
    """Return every row of a Linear with its bias behind it, (n_out, n_in + 1)."""
    return np.hstack([weights[block.weight], weights[block.bias][:, None]]).astype(np.float64)


def cross(family: Family, t: float) -> Weights:
    return NuslerpCrossover(t, t).cross(family, np.random.default_rng(0))


def equal_length_family(seed: int) -> Family:
    """Make random parents whose rows, each with its bias, all have length 1."""
    parents = []
    for weights in random_family(SPEC, 2, seed):
        scaled = dict(weights)
        for block in SPEC.blocks:
            lengths = np.linalg.norm(rows(weights, block), axis=1).astype(np.float32)
            scaled[block.weight] = weights[block.weight] / lengths[:, None]
            scaled[block.bias] = weights[block.bias] / lengths
        parents.append(scaled)
    return Family(parents, SPEC, ["a", "b"], [0.0, 0.0])


@settings(max_examples=30)
@given(seed=seeds, t=shares)
def test_rows_of_one_length_move_along_great_circles_as_in_scipy(seed: int, t: float) -> None:
    family = equal_length_family(seed)
    child = cross(family, t)
    for block in SPEC.blocks:
        triples = zip(*(rows(each, block) for each in (child, *family)), strict=True)
        for row, first, second in triples:
            # Float32 rows are of length 1 up to 1e-7, which scipy refuses.
            ends = [each / np.linalg.norm(each) for each in (second, first)]
            np.testing.assert_allclose(row, geometric_slerp(*ends, t, tol=1e-5), atol=1e-4)


@given(seed=seeds, t=shares)
def test_rows_of_any_length_follow_mergekit(seed: int, t: float) -> None:
    module: Any = pytest.importorskip("mergekit.merge_methods.nuslerp", exc_type=ImportError)
    torch: Any = pytest.importorskip("torch")
    family = random_family(SPEC, 2, seed)
    child = cross(family, t)
    for block in SPEC.blocks:
        first, second = (torch.from_numpy(rows(each, block)) for each in family)
        expected = module.nuslerp(1 - t, first, second, dim=-1, flatten=False).numpy()
        # Linear near parallel rows only here; such rows may differ by angle^2 / 8.
        np.testing.assert_allclose(rows(child, block), expected, rtol=1e-4, atol=1e-4)


@given(seed=seeds, t=shares)
def test_normalizations_are_interpolated_linearly(seed: int, t: float) -> None:
    family = random_family(SPEC, 2, seed)
    child = cross(family, t)
    norms = [name for block in SPEC.blocks for name in block.tensors[2:]]
    assert len(norms) == 4
    for name in norms:
        expected = t * family[0][name] + (1 - t) * family[1][name]
        np.testing.assert_allclose(child[name], expected, atol=1e-6)


@pytest.mark.parametrize(("t", "expected"), [(1.0, 0), (0.0, 1)])
def test_the_ends_are_exactly_a_parent(t: float, expected: int) -> None:
    family = random_family(SPEC, 2, 0)
    child = cross(family, t)
    assert all(np.array_equal(child[name], family[expected][name]) for name in SPEC.shapes)


@pytest.mark.parametrize(("t", "expected"), [(0.7, 0), (0.5, 0), (0.3, 1)])
def test_an_opposite_row_is_not_cancelled_and_leaves_other_rows_alone(
    t: float, expected: int
) -> None:
    family = random_family(SPEC, 2, 0)
    opposite = {name: tensor.copy() for name, tensor in family[1].items()}
    block = SPEC.blocks[0]
    opposite[block.weight][2] = -2 * family[0][block.weight][2]
    opposite[block.bias][2] = -2 * family[0][block.bias][2]
    parents = Family([family[0], opposite], SPEC, family.ids, family.fitness)
    child, before = rows(cross(parents, t), block), rows(cross(family, t), block)
    assert np.array_equal(child[2], rows(parents[expected], block)[2])
    others = [0, 1, 3, 4, 5]
    assert np.array_equal(child[others], before[others])


def test_a_dead_row_is_mixed_linearly() -> None:
    family = random_family(SPEC, 2, 0)
    dead = {name: tensor.copy() for name, tensor in family[0].items()}
    block = SPEC.blocks[1]
    dead[block.weight][1] = dead[block.bias][1] = 0
    parents = Family([dead, family[1]], SPEC, family.ids, family.fitness)
    child = rows(cross(parents, 0.25), block)
    np.testing.assert_allclose(child[1], 0.75 * rows(family[1], block)[1], rtol=1e-6)


def test_bounds_outside_the_parents_or_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"high must be a number in \[0, 1\], not 2"):
        NuslerpCrossover(0.5, 2)
    with pytest.raises(ValueError, match=r"low \(0\.8\) must not be above high \(0\.2\)"):
        NuslerpCrossover(0.8, 0.2)
