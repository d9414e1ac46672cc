"""Rounding to int8 against torch modules: what is rounded, and that Q-values are kept."""

import numpy as np
import pytest
import torch

from engine.learning.qnetwork import sequential
from engine.learning.rounding import round_network, round_with_feedback
from populations.errors import GenomeValueError
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec
from populations.quantization import dequantize, is_canonical, quantize

SPEC = NetworkSpec((4,), (32, 32), 2, norm="layer", dropout_slots=True)
OUTPUT = SPEC.blocks[-1]
LINEAGE = Lineage("parent", 0, 1)


def q_network(seed=0):
    """Return weights with Q-values near 90 and small gaps, as those of a trained CartPole net."""
    rng = np.random.default_rng(seed)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in SPEC.shapes.items()}
    shared = rng.uniform(0.5, 1.5, 32) * 3
    gap = rng.standard_normal(32) * 0.05
    weights[OUTPUT.weight] = np.stack([shared + gap, shared - gap]).astype(np.float32)
    weights[OUTPUT.bias] = np.full(2, 20, np.float32)
    return weights


def visited(n=2000, seed=1):
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)


def torch_values(weights, states):
    with torch.no_grad():
        return sequential(SPEC, weights).eval()(torch.from_numpy(states)).numpy()


def gap_error(weights, other, states):
    """Return the root mean square error of the gap between the two actions."""
    first, second = torch_values(weights, states), torch_values(other, states)
    return float(np.sqrt(np.square(np.diff(first) - np.diff(second)).mean()))


def test_gaps_on_new_states_are_closer_than_those_of_plain_rounding():
    fresh = visited(seed=2)
    for seed in range(5):
        weights = q_network(seed)
        plain = Genome.from_weights(SPEC, weights, LINEAGE).to_weights()
        mended = round_network(SPEC, weights, visited(), LINEAGE).to_weights()
        assert gap_error(weights, mended, fresh) < 0.5 * gap_error(weights, plain, fresh)


def test_mean_values_are_those_of_the_float_network():
    weights, states = q_network(), visited()
    rounded = round_network(SPEC, weights, states, LINEAGE).to_weights()
    expected = torch_values(weights, states).mean(axis=0, dtype=np.float64)
    actual = torch_values(rounded, states).mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_hidden_layers_are_those_of_plain_rounding():
    weights = q_network()
    genome = round_network(SPEC, weights, visited(), LINEAGE)
    plain = Genome.from_weights(SPEC, weights, LINEAGE)
    tensors = plain.tensors()
    hidden = [name for name in tensors if not name.startswith(OUTPUT.linear)]
    assert len(hidden) == 10  # two layers of codes, scales, bias, and two vectors of the norm
    for name in hidden:
        np.testing.assert_array_equal(genome.tensors()[name], tensors[name])
    assert is_canonical(genome.codes[OUTPUT.weight], genome.scales[OUTPUT.weight])
    assert genome.lineage.kind == "parent"
    assert genome.lineage.basis == genome.id


def test_states_that_tell_nothing_leave_the_output_layer_as_it_is():
    weights = q_network()
    genome = round_network(SPEC, weights, np.repeat(visited(1), 50, axis=0), LINEAGE)
    plain = Genome.from_weights(SPEC, weights, LINEAGE)
    np.testing.assert_array_equal(genome.codes[OUTPUT.weight], plain.codes[OUTPUT.weight])


def test_correlated_features_are_rounded_with_far_smaller_errors():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 24)).astype(np.float32)
    features = (rng.normal(size=(500, 4)) @ rng.normal(size=(4, 24)) + 5).astype(np.float32)
    rounded = round_with_feedback(weight, features)
    plain = dequantize(*quantize(weight))
    errors = [(features @ (weight - w).T).std(axis=0) for w in (rounded, plain)]
    assert (errors[0] < 0.5 * errors[1]).all()
    np.testing.assert_array_equal(dequantize(*quantize(rounded)), rounded)
    np.testing.assert_array_equal(quantize(rounded)[1], quantize(weight)[1])


def test_uncorrelated_features_and_rows_of_zeros_are_rounded_plainly():
    weight = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    weight[1] = 0
    features = np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32)
    plain = dequantize(*quantize(weight))
    np.testing.assert_array_equal(round_with_feedback(weight, features), plain)


def test_q_values_that_overflow_are_refused():
    weights = q_network()
    weights[OUTPUT.weight] *= np.float32(1e37)
    with pytest.raises(GenomeValueError, match="Q-values are NaN or infinite"):
        round_network(SPEC, weights, visited(), LINEAGE)


def test_weights_that_are_no_numbers_are_refused():
    weights = q_network()
    weights["network.4.weight"][0, 0] = np.nan
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(GenomeValueError, match=r"network\.4\.weight"),
    ):
        round_network(SPEC, weights, visited(), LINEAGE)
