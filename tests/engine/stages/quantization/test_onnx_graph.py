"""Exported models, run by ONNX Runtime, against the forward pass in NumPy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import StageError
from engine.stages.networks import Network
from engine.stages.quantization.onnx_graph import onnx_model
from engine.stages.quantization.static import OnnxNetwork
from populations.errors import GenomeValueError
from populations.network import NetworkSpec

WIDTHS = st.integers(1, 9)
SPECS = st.builds(
    NetworkSpec,
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    st.lists(WIDTHS, max_size=3).map(tuple),
    WIDTHS,
    st.sampled_from(["none", "layer"]),
    st.booleans(),
)


def network(spec: NetworkSpec, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    return Network(spec, {n: rng.normal(size=s).astype(np.float32) for n, s in spec.shapes.items()})


@settings(max_examples=30, deadline=None)
@given(spec=SPECS, seed=st.integers(0, 1000), n=st.integers(1, 70))
def test_the_model_computes_what_the_network_does(spec, seed, n) -> None:
    net = network(spec, seed)
    rows = np.random.default_rng(seed).normal(size=(n, spec.n_inputs)).astype(np.float32)
    exported = OnnxNetwork(spec, onnx_model(net).SerializeToString())
    wanted = net.q_values(rows)
    found = exported.q_values(rows)
    assert found.shape == (n, spec.n_actions)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * max(1, np.abs(wanted).max()))


def test_the_model_tells_its_shapes_and_keeps_names() -> None:
    spec = NetworkSpec((2, 3), (5,), 4, norm="layer", dropout_slots=True)
    model = onnx_model(network(spec))
    (taken,), (made,) = model.graph.input, model.graph.output
    sizes = [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim]
    assert (taken.name, sizes) == ("states", ["batch", 2, 3])
    sizes = [d.dim_param or d.dim_value for d in made.type.tensor_type.shape.dim]
    assert (made.name, sizes) == ("q_values", ["batch", 4])
    assert [tensor.name for tensor in model.graph.initializer] == list(spec.shapes)
    assert model.SerializeToString() == onnx_model(network(spec)).SerializeToString()
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["Flatten", "Gemm", "LayerNormalization", "Relu", "Gemm"]


def test_weights_that_are_no_numbers_are_refused() -> None:
    net = network(NetworkSpec((3,), (4,), 2))
    net.weights["network.0.bias"][1] = np.inf
    with pytest.raises(GenomeValueError, match=r"network.0.bias holds NaN or infinity"):
        onnx_model(net)


def test_a_missing_extra_is_told_with_its_command(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(StageError, match=r"pip install onnx onnxruntime"):
        onnx_model(network(NetworkSpec((3,), (), 2)))
