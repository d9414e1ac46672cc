"""The stacked network against plain torch modules, the second implementation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learning.qnetwork import StackedQNetwork, sequential
from populations.errors import GenomeShapeError
from populations.network import NetworkSpec

torch.set_num_threads(1)

SPECS = st.builds(
    NetworkSpec,
    observation_shape=st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple),
    hidden=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    n_actions=st.integers(1, 5),
    norm=st.sampled_from(["none", "layer"]),
    dropout_slots=st.booleans(),
)


def random_weights(spec, n_networks, seed):
    rng = np.random.default_rng(seed)
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.shapes.items()}
        for _ in range(n_networks)
    ]


@settings(max_examples=60)
@given(spec=SPECS, n_networks=st.integers(1, 3), shared=st.booleans(), seed=st.integers(0, 2**32))
def test_stack_equals_separate_modules_in_values_and_gradients(spec, n_networks, shared, seed):
    # In float64: LayerNorm over a few nearly equal units multiplies rounding errors by up to
    # 1 / sqrt(1e-5), which float32 would show as differences of 1e-3.
    weights = random_weights(spec, n_networks, seed)
    rng = np.random.default_rng(seed + 1)
    shape = (7, spec.n_inputs) if shared else (n_networks, 7, spec.n_inputs)
    x = torch.from_numpy(rng.standard_normal(shape))
    float32 = StackedQNetwork.from_weights(spec, weights).parameters
    stack = StackedQNetwork(
        spec, {name: t.detach().double().requires_grad_() for name, t in float32.items()}
    )
    values = stack.forward(x)
    assert values.shape == (n_networks, 7, spec.n_actions)
    values.tanh().sum().backward()
    for k in range(n_networks):
        module = sequential(spec, weights[k]).double().eval()
        expected = module((x if shared else x[k]).reshape(7, *spec.observation_shape))
        torch.testing.assert_close(values[k], expected, rtol=1e-9, atol=1e-9)
        expected.tanh().sum().backward()
        tensors = dict(module.named_parameters())
        assert list(tensors) == list(spec.shapes)
        for name, tensor in tensors.items():
            gradient = stack.parameters[name].grad
            assert gradient is not None
            torch.testing.assert_close(gradient[k], tensor.grad, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_stack_equals_separate_modules_in_float32(norm):
    spec = NetworkSpec((8,), (64, 32), 4, norm=norm)
    weights = [
        {name: tensor.detach().numpy() for name, tensor in sequential(spec).named_parameters()}
        for _ in range(3)
    ]
    x = torch.randn(50, 8)
    values = StackedQNetwork.from_weights(spec, weights).forward(x)
    for k in range(3):
        expected = sequential(spec, weights[k])(x)
        torch.testing.assert_close(values[k], expected, rtol=1e-5, atol=1e-5)


@given(spec=SPECS, seed=st.integers(0, 2**32))
def test_weights_survive_stacking_as_copies(spec, seed):
    weights = random_weights(spec, 2, seed)
    stack = StackedQNetwork.from_weights(spec, weights)
    back = stack.to_weights()
    assert stack.n_networks == len(back) == 2
    for before, after in zip(weights, back, strict=True):
        assert list(after) == list(spec.shapes)
        for name in spec.shapes:
            np.testing.assert_array_equal(before[name], after[name])
            assert not np.shares_memory(before[name], after[name])


def test_agentfarm_numbering_is_that_of_a_sequential_with_dropout():
    spec = NetworkSpec((8,), (16, 16), 4, norm="layer", dropout_slots=True)
    names = [name for name, _ in sequential(spec).named_parameters()]
    modules = dict.fromkeys(name.rsplit(".", 1)[0] for name in names)
    assert list(modules) == [f"network.{index}" for index in (0, 1, 4, 5, 8)]


def test_foreign_weights_are_refused_by_name():
    spec = NetworkSpec((4,), (8,), 2)
    wide = random_weights(NetworkSpec((4,), (9,), 2), 1, 0)
    with pytest.raises(GenomeShapeError, match=r"network 0 of the stack: network\.0\.weight must"):
        StackedQNetwork.from_weights(spec, wide)
    with pytest.raises(GenomeShapeError, match=r"network\.0\.weight must be float32"):
        sequential(spec, wide[0])
    with pytest.raises(ValueError, match="at least one network"):
        StackedQNetwork.from_weights(spec, [])


@pytest.mark.parametrize("shape", [(8,), (2, 4)])
def test_one_observation_needs_no_batch(shape):
    module = sequential(NetworkSpec(shape, (16,), 4, norm="layer")).eval()
    states = torch.randn(3, *shape)
    values = module(states)
    assert values.shape == (3, 4)
    for state, expected in zip(states, values, strict=True):
        torch.testing.assert_close(module(state), expected)
