"""Static quantization: weights and activations in int8, as an ONNX model for ONNX Runtime.

The activations that enter a Linear layer are rounded to 8 bits in ranges that are measured once, on
calibration states, so the value of a state does not depend on its batch. ONNX Runtime does it:
QDQ format, weights per output channel, ranges from least to greatest value seen.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.stages.networks import Network
from engine.stages.quantization.onnx_graph import INPUT, onnx_model, require_onnx
from populations.genome import Genome
from populations.network import NetworkSpec

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LINEAR = "Gemm"
BATCH = 64


@dataclass(frozen=True, eq=False)
class StaticModel:
    """A quantized ONNX model and what is in it.

    Attributes:
        content: Bytes of the ``.onnx`` file.
        linear_layers_quantized: Linear layers with int8 weights and quantized inputs.
        stays_float: Operators that compute in float32.
        calibration_samples: States that the ranges were measured on.
    """

    content: bytes
    linear_layers_quantized: int
    stays_float: tuple[str, ...]
    calibration_samples: int


def quantize_static(genome: Genome, calibration: NDArray[np.float32]) -> StaticModel:
    """Quantize the activations of an int8 network as well.

    The int8 codes, scales and biases are those of the genome. What leaves a Linear layer stays
    float32, or Q-values that differ by less than one step of their range would become equal.

    Args:
        genome: The network.
        calibration: States that set the ranges, ``(N, n_inputs)``; what lies outside of them
            later is clipped.

    Raises:
        StageError: The packages for it are not installed.
        ValueError: There is no state, or they do not fit.
    """
    spec = genome.spec
    if calibration.ndim != 2 or calibration.shape[1] != spec.n_inputs or len(calibration) == 0:
        raise ValueError(
            f"calibration states must be of shape (N, {spec.n_inputs}), not {calibration.shape}"
        )
    require_onnx()
    from onnxruntime import quantization as library
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx_model(Network(spec, genome.to_weights()))
    with tempfile.TemporaryDirectory() as folder:
        given, ready, written = (Path(folder) / name for name in ("float", "ready", "int8"))
        given.write_bytes(model.SerializeToString(deterministic=True))
        # Shapes alone: without them the library logs a warning, and there is nothing to fuse.
        quant_pre_process(given, ready, skip_optimization=True, skip_symbolic_shape=True)
        library.quantize_static(
            ready,
            written,
            _reader(_shaped(spec, calibration)),
            quant_format=library.QuantFormat.QDQ,
            op_types_to_quantize=[LINEAR],
            per_channel=True,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            calibrate_method=library.CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": [LINEAR]},
        )
        content = written.read_bytes()
    quantized, floating = _inspect(content)
    return StaticModel(content, quantized, floating, len(calibration))


class OnnxNetwork:
    """Runs an ONNX model on one thread.

    Args:
        spec: Architecture of the network that it stands for.
        content: Bytes of the ``.onnx`` file.
    """

    def __init__(self, spec: NetworkSpec, content: bytes) -> None:
        self.spec = spec
        self._session = _session(content)

    def q_values(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return Q-values ``(N, n_actions)`` of flattened states ``(N, n_inputs)``."""
        (values,) = self._session.run(None, {INPUT: _shaped(self.spec, states)})
        return np.asarray(values, dtype=np.float32)


def _session(content: bytes) -> InferenceSession:
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _shaped(spec: NetworkSpec, states: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(states, np.float32).reshape(-1, *spec.observation_shape)


def _reader(states: NDArray[np.float32]) -> Any:
    """Return what the library reads calibration states from."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._batches = iter(states[i : i + BATCH] for i in range(0, len(states), BATCH))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


def _inspect(content: bytes) -> tuple[int, tuple[str, ...]]:
    """Return how many Linear layers are quantized, and which other operators compute in float."""
    import onnx

    graph = onnx.load_from_string(content).graph
    int8 = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    makers = {node.output[0]: node for node in graph.node}

    def source(name: str, operator: str) -> str:
        """Return the first input of the node that makes ``name``; empty if it is another one."""
        maker = makers.get(name)
        return maker.input[0] if maker is not None and maker.op_type == operator else ""

    quantized, others = 0, set()
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        inputs = [source(name, "DequantizeLinear") for name in node.input[:2]]
        if node.op_type == LINEAR and source(inputs[0], "QuantizeLinear") and inputs[1] in int8:
            quantized += 1
        else:
            others.add(node.op_type)
    return quantized, tuple(sorted(others))
