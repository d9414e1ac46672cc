"""Statistics of hidden units after REPAIR, measured by a second forward pass in torch."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from populations.network import NetworkSpec, Weights
from strategies.errors import NeedError
from strategies.parents import Parent
from strategies.rescaling import restore_statistics

specs = st.builds(
    NetworkSpec,
    observation_shape=st.just((3,)),
    hidden=st.lists(st.integers(2, 7), min_size=1, max_size=3).map(tuple),
    n_actions=st.integers(1, 3),
    norm=st.sampled_from(["none", "layer"]),
)


def network(spec: NetworkSpec, seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(s, np.float32) for n, s in spec.shapes.items()}


def parents_of(spec: NetworkSpec, seed: int, n: int = 2) -> list[Parent]:
    states = np.random.default_rng(seed).standard_normal((256, 3), np.float32)
    return [Parent(f"p{i}", spec, network(spec, seed + i), states) for i in range(n)]


def statistics(spec: NetworkSpec, weights: Weights, states: Any) -> list[tuple[Any, Any]]:
    """Return mean and deviation of what enters each ReLU, from torch modules."""
    values, found = torch.from_numpy(np.array(states)), []
    for block in spec.blocks[:-1]:
        linear = nn.Linear(block.n_in, block.n_out)
        linear.weight.data = torch.tensor(weights[block.weight])
        linear.bias.data = torch.tensor(weights[block.bias])
        values = linear(values)
        if block.norm is not None:
            norm = nn.LayerNorm(block.n_out)
            norm.weight.data = torch.tensor(weights[f"{block.norm}.weight"])
            norm.bias.data = torch.tensor(weights[f"{block.norm}.bias"])
            values = norm(values)
        found.append((values.mean(0).detach().numpy(), values.std(0, False).detach().numpy()))
        values = torch.relu(values)
    return found


@given(spec=specs, seed=st.integers(0, 1000), t=st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=40)
def test_an_interpolated_child_gets_the_interpolated_statistics(
    spec: NetworkSpec, seed: int, t: float
) -> None:
    a, b = parents_of(spec, seed)
    child = {
        n: np.float32(t) * a.weights[n] + np.float32(1 - t) * b.weights[n] for n in spec.shapes
    }
    restored = restore_statistics(spec, child, [a, b])
    spec.check(restored, "restored")
    measured, before = (statistics(spec, w, a.states) for w in (restored, child))
    of_a, of_b = (statistics(spec, p.weights, p.states) for p in (a, b))
    for (mean, std), (_, child_std), (mean_a, std_a), (mean_b, std_b) in zip(
        measured, before, of_a, of_b, strict=True
    ):
        if (child_std < 1e-3).any():
            return  # a unit that does not vary cannot be scaled, and those behind it notice
        scale = 1 + np.abs(mean_a) + np.abs(mean_b) + std_a + std_b
        np.testing.assert_array_less(np.abs(mean - (t * mean_a + (1 - t) * mean_b)), 2e-2 * scale)
        np.testing.assert_array_less(np.abs(std - (t * std_a + (1 - t) * std_b)), 2e-2 * scale)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_a_copy_of_a_parent_stays_as_it_is(norm: Any) -> None:
    spec = NetworkSpec((3,), (6, 5), 2, norm=norm)
    parents = parents_of(spec, 3, n=3)
    for parent in parents:
        restored = restore_statistics(spec, parent.weights, parents)
        for name in spec.shapes:
            np.testing.assert_allclose(restored[name], parent.weights[name], rtol=1e-4, atol=1e-4)


def test_identical_parents_give_that_child() -> None:
    spec = NetworkSpec((3,), (6,), 2)
    (parent,) = parents_of(spec, 1, n=1)
    restored = restore_statistics(spec, parent.weights, [parent, parent])
    for name in spec.shapes:
        np.testing.assert_allclose(restored[name], parent.weights[name], rtol=1e-5, atol=1e-6)


def test_a_constant_unit_keeps_its_row_and_gets_the_mean() -> None:
    spec = NetworkSpec((3,), (2,), 1)
    parents = parents_of(spec, 5)
    child = {name: np.array(tensor) for name, tensor in parents[0].weights.items()}
    child["network.0.weight"][1] = 0
    with np.errstate(all="raise"):
        restored = restore_statistics(spec, child, parents)
    assert not restored["network.0.weight"][1].any()
    means = [np.mean(statistics(spec, p.weights, p.states)[0][0][1]) for p in parents]
    assert min(means) - 1e-4 <= restored["network.0.bias"][1] <= max(means) + 1e-4


def test_the_child_is_not_changed() -> None:
    spec = NetworkSpec((3,), (4, 4), 2)
    parents = parents_of(spec, 9)
    child = network(spec, 99)
    before = {name: tensor.copy() for name, tensor in child.items()}
    restore_statistics(spec, child, parents)
    for name in child:
        np.testing.assert_array_equal(child[name], before[name])


def test_parents_of_other_widths_are_refused() -> None:
    spec = NetworkSpec((3,), (4,), 2)
    (parent,) = parents_of(NetworkSpec((3,), (5,), 2), 0, n=1)
    with pytest.raises(NeedError, match="statistics are restored unit by unit, but the child is"):
        restore_statistics(spec, network(spec, 0), [parent])
