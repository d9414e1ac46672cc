"""The flat buffer, and the fake quantizer against the int8 codec."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learning.flat import FakeQuantizer, FlatStack
from populations.network import NetworkSpec
from populations.quantization import dequantize, quantize

torch.set_num_threads(1)

SPECS = st.builds(
    NetworkSpec,
    observation_shape=st.tuples(st.integers(1, 9)),
    hidden=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    n_actions=st.integers(1, 5),
    norm=st.sampled_from(["none", "layer"]),
)


def assert_equal_networks(first, second):
    assert list(first) == list(second)
    for name in first:
        assert first[name].dtype == second[name].dtype
        np.testing.assert_array_equal(first[name], second[name])


@given(spec=SPECS, n_networks=st.integers(1, 9), seed=st.integers(0))
def test_networks_survive_the_buffer_as_copies(random_networks, spec, n_networks, seed):
    weights = random_networks(spec, n_networks, seed)
    stack = FlatStack(spec, n_networks)
    buffer = stack.load(weights)
    back = stack.unload(buffer)
    assert len(back) == n_networks
    for before, after in zip(weights, back, strict=True):
        assert_equal_networks(before, after)
    buffer.zero_()
    assert_equal_networks(back[0], weights[0])


@given(spec=SPECS, n_networks=st.integers(1, 9))
def test_views_are_contiguous_disjoint_and_matrices_come_first(spec, n_networks):
    stack = FlatStack(spec, n_networks)
    buffer = stack.new()
    for number, (name, view) in enumerate(stack.views(buffer).items(), start=1):
        assert view.shape == (n_networks, *spec.shapes[name])
        assert view.is_contiguous()
        assert (view == 0).all()  # nobody else has written here
        view.fill_(number)
    matrices = sum(math.prod(spec.shapes[name]) for name in spec.matrices)
    assert int((buffer[: stack.n_matrix] > 0).sum()) == n_networks * matrices
    assert int((buffer > 0).sum()) == n_networks * spec.n_parameters
    assert stack.size % 64 == stack.n_matrix % 64 == 0


@given(spec=SPECS, n_networks=st.integers(1, 5))
def test_spread_gives_every_element_the_value_of_its_network(spec, n_networks):
    stack = FlatStack(spec, n_networks)
    spread = stack.spread(torch.arange(1.0, n_networks + 1))
    for view in stack.views(spread).values():
        for k in range(n_networks):
            assert (view[k] == k + 1).all()
    assert int((spread > 0).sum()) == n_networks * spec.n_parameters


def rounded(stack, buffer):
    quantizer = FakeQuantizer(stack)
    quantizer.rescale(buffer)
    out = torch.full_like(buffer, torch.nan)
    quantizer.apply(buffer, out)
    return out


@settings(max_examples=50)
@given(spec=SPECS, seed=st.integers(0), log_size=st.floats(-30, 30))
def test_rounding_is_that_of_the_codec(random_networks, spec, seed, log_size):
    weights = [
        {name: tensor * np.float32(10.0**log_size) for name, tensor in network.items()}
        for network in random_networks(spec, 3, seed)
    ]
    stack = FlatStack(spec, 3)
    back = stack.unload(rounded(stack, stack.load(weights)))
    for before, after in zip(weights, back, strict=True):
        for name in spec.vectors:
            np.testing.assert_array_equal(after[name], before[name])
        for name in spec.matrices:
            codes, scales = quantize(before[name])
            position = before[name].astype(np.float64) / scales[:, None]
            # Halfway between two codes, rounding errors decide; either of them is right.
            clear = np.abs(position - np.floor(position) - 0.5) > 1e-4
            expected = dequantize(codes, scales)
            np.testing.assert_array_equal(after[name][clear], expected[clear])
            error = np.abs(after[name].astype(np.float64) - before[name])
            assert (error <= scales[:, None] * (0.5 + 1e-4)).all()


@given(spec=SPECS, seed=st.integers(0))
def test_what_the_codec_has_rounded_stays_as_it_is(random_networks, spec, seed):
    (weights,) = random_networks(spec, 1, seed)
    genome = {n: dequantize(*quantize(t)) if t.ndim == 2 else t for n, t in weights.items()}
    stack = FlatStack(spec, 1)
    (back,) = stack.unload(rounded(stack, stack.load([genome])))
    assert_equal_networks(back, {name: genome[name] for name in back})


def test_rows_of_zeros_and_of_subnormal_numbers_become_zero():
    spec = NetworkSpec((2,), (), 3)
    weights = {
        "network.0.weight": np.array([[0, 0], [1e-40, -1e-40], [1, -0.5]], np.float32),
        "network.0.bias": np.array([0, 1e-40, 3], np.float32),
    }
    stack = FlatStack(spec, 1)
    (back,) = stack.unload(rounded(stack, stack.load([weights])))
    expected = dequantize(*quantize(weights["network.0.weight"]))
    np.testing.assert_array_equal(back["network.0.weight"], expected)
    np.testing.assert_array_equal(back["network.0.bias"], weights["network.0.bias"])


def test_scales_are_those_of_the_last_rescale():
    spec = NetworkSpec((2,), (), 1)
    stack = FlatStack(spec, 1)
    quantizer = FakeQuantizer(stack)
    weights = {
        "network.0.weight": np.array([[127, 0.4]], np.float32),
        "network.0.bias": np.zeros(1, np.float32),
    }
    buffer = stack.load([weights])
    quantizer.rescale(buffer)  # the scale of the row is 1
    weight = stack.view(buffer, "network.0.weight")[0, 0]
    weight.copy_(torch.tensor([254.0, 2.9]))
    out = stack.new()
    quantizer.apply(buffer, out)
    assert stack.view(out, "network.0.weight").tolist() == [[[254.0, 3.0]]]
    quantizer.rescale(buffer)  # now it is 2
    quantizer.apply(buffer, out)
    assert stack.view(out, "network.0.weight").tolist() == [[[254.0, 2.0]]]
