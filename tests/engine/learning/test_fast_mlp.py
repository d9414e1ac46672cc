"""The hand-written passes against plain torch modules and against autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.learning.fast_mlp import FastMLP
from engine.learning.flat import FlatStack
from engine.learning.qnetwork import StackedQNetwork, sequential
from populations.network import NetworkSpec

torch.set_num_threads(1)

SPECS = st.builds(
    NetworkSpec,
    observation_shape=st.tuples(st.integers(1, 9)),
    hidden=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    n_actions=st.integers(1, 5),
    norm=st.sampled_from(["none", "layer"]),
)


def passes(spec, weights, states, error, dtype=torch.float32):
    """Return Q-values ``(K, A, B)`` and gradients by name of the hand-written passes."""
    stack = FlatStack(spec, len(weights))
    gradients = torch.full_like(stack.new(), torch.nan).to(dtype)
    path = FastMLP(stack, stack.load(weights).to(dtype), gradients)
    values = path.forward(states).clone()
    path.backward(error)
    return values, stack.views(gradients)


@settings(max_examples=60)
@given(spec=SPECS, n_networks=st.integers(1, 3), n_states=st.integers(1, 40), seed=st.integers(0))
def test_values_and_gradients_are_those_of_autograd(
    random_networks, spec, n_networks, n_states, seed
):
    # In float64: LayerNorm over a few nearly equal units multiplies rounding errors.
    weights = random_networks(spec, n_networks, seed)
    rng = np.random.default_rng(seed)
    states = torch.from_numpy(rng.standard_normal((spec.n_inputs, n_states)))
    error = torch.from_numpy(rng.standard_normal((n_networks, spec.n_actions, n_states)))
    values, gradients = passes(spec, weights, states, error, torch.float64)

    float32 = StackedQNetwork.from_weights(spec, weights).parameters
    parameters = {n: t.detach().double().requires_grad_() for n, t in float32.items()}
    expected = StackedQNetwork(spec, parameters).forward(states.T).transpose(1, 2)
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-9)
    expected.backward(error)
    assert list(gradients) == list(spec.shapes)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, parameters[name].grad, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("hidden", [(), (32, 32), (13, 7)])
def test_values_and_gradients_are_those_of_plain_modules_in_float32(random_networks, hidden, norm):
    spec = NetworkSpec((8,), hidden, 4, norm=norm)
    weights = random_networks(spec, 3, 0)
    rng = np.random.default_rng(1)
    states = torch.from_numpy(rng.standard_normal((8, 64)).astype(np.float32))
    error = torch.from_numpy(rng.standard_normal((3, 4, 64)).astype(np.float32))
    values, gradients = passes(spec, weights, states, error)
    for k, network in enumerate(weights):
        module = sequential(spec, network)
        expected = module(states.T).T
        torch.testing.assert_close(values[k], expected, rtol=1e-4, atol=1e-5)
        expected.backward(error[k])
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad, rtol=1e-3, atol=1e-4)


def test_features_are_what_the_output_layer_reads(random_networks):
    spec = NetworkSpec((3,), (5,), 2)
    (weights,) = random_networks(spec, 1, 0)
    stack = FlatStack(spec, 1)
    states = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    path = FastMLP(stack, stack.load([weights]), stack.new())
    hidden = weights["network.0.weight"] @ states + weights["network.0.bias"][:, None]
    np.testing.assert_allclose(
        path.features(torch.from_numpy(states))[0], np.maximum(hidden, 0), rtol=1e-5, atol=1e-6
    )


def test_forward_reads_the_buffer_anew_and_leaves_it_alone(random_networks):
    spec = NetworkSpec((4,), (6,), 2, norm="layer")
    first, second = random_networks(spec, 2, 0)
    stack = FlatStack(spec, 1)
    buffer = stack.load([first])
    path = FastMLP(stack, buffer, stack.new())
    states = torch.randn(4, 32)
    before = path.forward(states).clone()
    assert torch.equal(buffer, stack.load([first]))
    buffer.copy_(stack.load([second]))
    after = path.forward(states)
    assert not torch.equal(before, after)
    again = FastMLP(stack, stack.load([second]), stack.new()).forward(states)
    assert torch.equal(after, again)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize(
    ("n_inputs", "hidden", "n_actions"),
    [
        (4, (), 2),
        (1, (32,), 2),
        (1, (16, 1), 3),
        (17, (13, 1, 9), 5),
        (8, (32, 32), 4),
        (3, (5,), 2),
    ],
)
def test_a_network_is_equal_to_the_bit_whatever_its_neighbors(
    random_networks, n_inputs, hidden, n_actions, norm
):
    spec = NetworkSpec((n_inputs,), hidden, n_actions, norm=norm)
    weights = random_networks(spec, 64, 0)
    rng = np.random.default_rng(1)
    states = torch.from_numpy(rng.standard_normal((n_inputs, 32)).astype(np.float32))
    error = torch.from_numpy(rng.standard_normal((64, n_actions, 32)).astype(np.float32))
    values, gradients = passes(spec, weights, states, error)
    for n_networks in (1, 3, 8, 33, 64):
        rows = rng.permutation(64)[:n_networks]
        some: Tensor = error[rows]
        values_of_some, gradients_of_some = passes(spec, [weights[k] for k in rows], states, some)
        assert torch.equal(values_of_some, values[rows])
        for name, gradient in gradients_of_some.items():
            assert torch.equal(gradient, gradients[name][rows]), (name, n_networks)
