"""A Q-network as an ONNX model, built node by node, so that exporting needs no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import StageError
from engine.stages.networks import Network
from populations.network import LAYER_NORM_EPSILON

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

INPUT, OUTPUT = "states", "q_values"
OPSET = 17
"""The first one with LayerNormalization."""
IR_VERSION = 8
"""The file format that came with that opset, so that old runtimes read it too."""
INSTALL = "pip install onnx onnxruntime"


def require_onnx() -> None:
    """Raise unless the extra is installed.

    Raises:
        StageError: As said, with the command that installs it.
    """
    try:
        for package in ("onnx", "onnxruntime"):
            importlib.import_module(package)
    except ImportError as error:
        raise StageError(
            f"ONNX models need the packages onnx and onnxruntime ({error}); install them with "
            f"{INSTALL}"
        ) from error


def onnx_model(network: Network) -> ModelProto:
    """Return a float32 network as an ONNX model.

    Its input ``states`` has shape ``(batch, *observation_shape)``, its output ``q_values``
    ``(batch, n_actions)``, both float32 with any batch size. Tensors keep their names.

    Args:
        network: Any network of finite weights.

    Raises:
        StageError: The packages for it are not installed.
        GenomeShapeError: The weights are not those of the architecture.
        GenomeValueError: A weight is NaN or infinite.
    """
    require_onnx()
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    spec = network.spec
    spec.check(network.weights, "the network to export")
    shape: list[str | int | None] = ["batch", *spec.observation_shape]
    graph = helper.make_graph(
        _nodes(network),
        "q_network",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", spec.n_actions])],
        [
            numpy_helper.from_array(np.ascontiguousarray(network.weights[name]), name)
            for name in spec.shapes
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cultivar",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _nodes(network: Network) -> list[NodeProto]:
    """Return the nodes from input to output; each is named after what it writes."""
    from onnx import helper

    nodes: list[NodeProto] = []
    features = INPUT

    def add(operator: str, output: str, *parameters: str, **attributes: Any) -> None:
        nonlocal features
        inputs = [features, *parameters]
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        features = output

    if len(network.spec.observation_shape) > 1:
        add("Flatten", "flat", axis=1)
    *hidden, last = network.spec.blocks
    for block in hidden:
        add("Gemm", block.linear, block.weight, block.bias, transB=1)
        if block.norm is not None:
            parameters = (f"{block.norm}.weight", f"{block.norm}.bias")
            add("LayerNormalization", block.norm, *parameters, axis=-1, epsilon=LAYER_NORM_EPSILON)
        add("Relu", f"{block.linear}.relu")
    add("Gemm", OUTPUT, last.weight, last.bias, transB=1)
    return nodes
