"""Quantized activations of ONNX Runtime against a simulation of them in NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engine.stages.networks import Network
from engine.stages.quantization.static import OnnxNetwork, StaticModel, quantize_static
from engine.stages.quantization.weights import quantized
from populations.genome import Genome
from populations.network import NetworkSpec

SPEC = NetworkSpec((6,), (16, 12), 3, norm="layer", dropout_slots=True)


def network(spec: NetworkSpec = SPEC) -> Network:
    rng = np.random.default_rng(1)
    return Network(spec, {n: rng.normal(size=s).astype(np.float32) for n, s in spec.shapes.items()})


def states(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def genome() -> Genome:
    return quantized(network(), states(256))


@pytest.fixture(scope="module")
def model(genome) -> StaticModel:
    return quantize_static(genome, states(256))


def layer(genome: Genome, x: np.ndarray, number: int, ranges: list[tuple[float, float]]):
    """Return a Linear layer on features that are rounded to 8 bits in their range."""
    block = genome.spec.blocks[number]
    low, high = min(ranges[number][0], 0.0), max(ranges[number][1], 0.0)
    step = (high - low) / 255
    zero = np.round(-low / step)
    codes = np.clip(np.round(x / step) + zero, 0, 255) - zero
    sums = codes @ genome.codes[block.weight].T.astype(np.float64)
    steps = step * genome.scales[block.weight]
    return (sums + np.round(genome.vectors[block.bias] / steps)) * steps


def simulate(genome: Genome, rows: np.ndarray, ranges: list[tuple[float, float]]) -> np.ndarray:
    x = rows.astype(np.float64)
    for number, block in enumerate(genome.spec.blocks[:-1]):
        x = layer(genome, x, number, ranges)
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        scale, shift = (genome.vectors[f"{block.norm}.{name}"] for name in ("weight", "bias"))
        x = np.maximum(x * scale + shift, 0)
    return layer(genome, x, len(genome.spec.blocks) - 1, ranges)


def ranges_of(genome: Genome, rows: np.ndarray) -> list[tuple[float, float]]:
    """Return least and greatest input of every layer, of the network without rounding."""
    found, x = [(rows.min(), rows.max())], rows.astype(np.float64)
    weights = genome.to_weights()
    for block in genome.spec.blocks[:-1]:
        x = x @ weights[block.weight].T + weights[block.bias]
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        x = np.maximum(x * weights[f"{block.norm}.weight"] + weights[f"{block.norm}.bias"], 0)
        found.append((x.min(), x.max()))
    return found


def test_the_runtime_computes_what_a_simulation_of_8_bits_does(genome, model) -> None:
    rows = states(400, 7)
    wanted = simulate(genome, rows, ranges_of(genome, states(256)))
    found = OnnxNetwork(SPEC, model.content).q_values(rows)
    # A number half-way between two codes may be rounded either way: rare, and one step at most.
    error = np.abs(found - wanted)
    assert np.median(error) < 1e-5
    assert (error > 1e-3).mean() < 0.02
    assert error.max() < 0.1
    # What rounding activations does is far larger, or the comparison would show nothing.
    assert np.abs(found - Network(SPEC, genome.to_weights()).q_values(rows)).mean() > 0.005


def test_the_model_has_the_codes_of_the_genome(genome, model) -> None:
    graph = onnx.load_from_string(model.content).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name in SPEC.matrices:
        stored = tensors[f"{name}_quantized"]
        assert stored.dtype == np.int8
        np.testing.assert_array_equal(stored, genome.codes[name])
        np.testing.assert_array_equal(tensors[f"{name}_scale"], genome.scales[name])


def test_what_stays_float_is_told(model) -> None:
    assert model.linear_layers_quantized == 3
    assert model.stays_float == ("LayerNormalization", "Relu")
    assert model.calibration_samples == 256


def test_a_state_gets_the_same_values_alone_and_beside_an_outlier(model) -> None:
    runtime, rows = OnnxNetwork(SPEC, model.content), states(40, 3)
    whole = runtime.q_values(rows)
    alone = np.concatenate([runtime.q_values(row[None]) for row in rows])
    np.testing.assert_allclose(alone, whole, atol=1e-6)
    rows[0] *= 100
    np.testing.assert_allclose(runtime.q_values(rows)[1:], whole[1:], atol=1e-6)


def test_equal_calibration_gives_equal_bytes_and_no_word_on_the_terminal(genome, model, caplog):
    assert quantize_static(genome, states(256)).content == model.content
    assert caplog.records == []


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec((6,), (), 2),
        NetworkSpec((2, 3), (5,), 2),
        NetworkSpec((6,), (4, 4, 4), 2, norm="layer"),
    ],
)
def test_every_linear_layer_of_any_network_is_quantized(spec: NetworkSpec) -> None:
    found = quantize_static(quantized(network(spec)), states(100))
    assert found.linear_layers_quantized == len(spec.blocks)
    net, rows = network(spec), states(200, 5)
    values, wanted = OnnxNetwork(spec, found.content).q_values(rows), net.q_values(rows)
    spread = wanted.max() - wanted.min()
    assert np.abs(values - wanted).mean() < 0.02 * spread


@pytest.mark.parametrize("shape", [(0, 6), (10, 5), (6,)])
def test_calibration_states_must_fit(genome, shape) -> None:
    with pytest.raises(ValueError, match=r"calibration states must be of shape \(N, 6\), not"):
        quantize_static(genome, np.zeros(shape, np.float32))
