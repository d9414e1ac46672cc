"""The stage of post-training quantization: its settings, its files and its report."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import StageError
from engine.stages.quantization.calibration import Lesson, keep_states, lesson_for
from engine.stages.quantization.int8_file import Int8File, check_int8_file, tensor_bytes
from engine.stages.quantization.static import OnnxNetwork, StaticModel, quantize_static
from engine.stages.quantization.weights import (
    check_is_float,
    dequantized,
    fidelity,
    int8_sidecar,
    quantized,
)
from engine.stages.reports.files import write_json
from engine.stages.roles import Role, load_role, save_role
from engine.stages.state_sets import States
from engine.stages.states import evaluation_states
from engine.stages.validation.role_checks import all_q_values
from populations.genome import Genome
from populations.storage import write_atomically

Mode = Literal["dynamic", "static"]
BACKENDS = ("auto", "x86", "fbgemm", "qnnpack")
WEIGHTS = "weights: int8, one scale per output row; biases and normalization: float32"
FLOAT_ACTIVATIONS = "activations: float32, so the action in a state does not depend on its batch"
INT8_ACTIVATIONS = (
    "activations that enter a Linear layer: 8 bits in the .onnx file, in ranges set by the "
    "calibration states; the .pt file has the same int8 weights, for crossover and validation"
)
SATURATION = "on x86 without VNNI, ONNX Runtime may saturate sums of products of 8 bits"


@dataclass(frozen=True)
class PtqConfig:
    """How a network is quantized.

    Attributes:
        mode: ``dynamic``: weights alone. ``static``: activations too, in an ONNX model beside.
        dtype: ``qint8``, the name of AgentFarm for signed int8.
        backend: Accepted as AgentFarm does; has no effect here.
        calibration_batches: Batches of calibration states, at least 1.
        calibration_batch_size: States in each, at least 1.
        refit: Whether the output layer is fitted to make up for what rounding changes.
        seed: Chooses calibration states.

    Raises:
        StageError: A setting is out of its range.
    """

    mode: Mode = "dynamic"
    dtype: Literal["qint8"] = "qint8"
    backend: str = "auto"
    calibration_batches: int = 10
    calibration_batch_size: int = 64
    refit: bool = True
    seed: int = 42

    def __post_init__(self) -> None:
        """Check every range."""
        if self.mode not in ("dynamic", "static"):
            raise StageError(f"--mode must be dynamic or static, not {self.mode!r}")
        if self.dtype != "qint8":
            raise StageError(f"--dtype must be qint8, not {self.dtype!r}")
        if self.backend not in BACKENDS:
            raise StageError(f"--backend must be one of {', '.join(BACKENDS)}, not {self.backend}")
        for name in ("calibration_batches", "calibration_batch_size"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise StageError(f"--{flag} must be at least 1, not {getattr(self, name)}")
        if self.mode == "static" and self.n_calibration < 2:
            raise StageError("static quantization needs at least 2 calibration states, not 1")

    @property
    def n_calibration(self) -> int:
        """Most calibration states that are used."""
        return self.calibration_batches * self.calibration_batch_size

    @property
    def calibrates(self) -> bool:
        """Whether calibration states are of use."""
        return self.refit or self.mode == "static"


@dataclass(frozen=True)
class Quantized:
    """A quantized network as it was written, and what its report says."""

    role: Role
    report: dict[str, Any]


def quantize_role(
    network: Role,
    directory: Path,
    config: PtqConfig | None = None,
    n_states: int = 1000,
    states_file: Path | None = None,
    use_training_states: bool = False,
) -> Quantized:
    """Quantize a network, read back what was written, and compare the two on held-out states.

    Args:
        network: A float32 network, for example ``student_A``.
        directory: Gets ``<name>_int8.pt`` with its sidecar, ``<name>_int8.onnx`` in static mode,
            and ``quantization_report_<label>.json``; the label is what follows the last ``_``.
        config: How.
        n_states: Most states to compare on.
        states_file: States to calibrate on, of which a tenth is put aside to compare on; by default
            those that the network was trained on, and put aside then.
        use_training_states: Compare on states that it was trained on.

    Raises:
        StageError: The network or the states cannot be used, an extra is missing, or a file
            cannot be written.
    """
    config = config or PtqConfig()
    check_is_float(network)
    lesson = _lesson(network, config, states_file)
    start = time.perf_counter()
    refits = config.refit and lesson is not None
    genome = quantized(network.network, lesson.states if lesson and refits else None)
    static = None
    if config.mode == "static":
        assert lesson is not None
        static = quantize_static(genome, lesson.states)
    elapsed = time.perf_counter() - start
    about = _about(network, genome, config, lesson)
    role, file, onnx = _write(network, genome, static, about, directory, lesson)
    judged = evaluation_states(
        [role, network],
        n_states,
        genome.spec.n_inputs,
        config.seed,
        states_file if lesson is None else None,
        use_training_states,
    )
    label = network.name.rpartition("_")[2]
    report = {
        "pair": label,
        "float_checkpoint": str(network.path),
        "quantized_checkpoint": str(role.path),
        "quantization": {
            **about,
            "elapsed_seconds": elapsed,
            "linear_layers_quantized": file.linear_layers,
            "quantized_param_bytes": file.tensor_bytes,
        },
        "calibration": None
        if lesson is None
        else {"source": lesson.source, "n_states": len(lesson.states)},
        "size": {
            "float_checkpoint_bytes": None if network.path is None else network.path.stat().st_size,
            "quantized_checkpoint_bytes": file.file_bytes,
        },
        **_comparisons(network, genome, refits, judged.states),
        "onnx": _onnx_report(network, genome, static, onnx, judged.states),
        "states": judged.record(),
    }
    write_json(directory / f"quantization_report_{label}.json", report)
    return Quantized(role, report)


def _lesson(network: Role, config: PtqConfig, states_file: Path | None) -> Lesson | None:
    if not config.calibrates:
        return None
    drawn = config.n_calibration if config.mode == "static" else None
    return lesson_for(network, config.n_calibration, config.seed, states_file, drawn)


def _about(
    network: Role, genome: Genome, config: PtqConfig, lesson: Lesson | None
) -> dict[str, Any]:
    """Return what a sidecar and a report say of the quantization, all but times."""
    refits = config.refit and lesson is not None
    notes = [WEIGHTS, FLOAT_ACTIVATIONS if config.mode == "dynamic" else INT8_ACTIVATIONS]
    if lesson is not None and refits:
        notes.append(f"output layer: fitted to the float Q-values on {len(lesson.states)} states")
    elif config.refit:
        notes.append("output layer: rounded as it was, as no states of the network are known")
    else:
        notes.append("output layer: rounded as it was, as --no-refit was given")
    if config.mode == "static":
        notes.append(SATURATION)
    if config.backend != "auto":
        notes.append(f"--backend {config.backend} has no effect: no kernel of torch's is used")
    return {
        "mode": config.mode,
        "dtype": config.dtype,
        "backend": "onnxruntime" if config.mode == "static" else "none",
        "refit": refits,
        "calibration_samples": 0 if lesson is None else len(lesson.states),
        "linear_layers_quantized": len(genome.spec.matrices),
        "float_param_bytes": 4 * network.network.n_parameters,
        "quantized_param_bytes": tensor_bytes(genome),
        "notes": notes,
    }


def _write(
    network: Role,
    genome: Genome,
    static: StaticModel | None,
    about: dict[str, Any],
    directory: Path,
    lesson: Lesson | None,
) -> tuple[Role, Int8File, Path | None]:
    """Write all files of a network but the report, and read back the int8 one."""
    directory.mkdir(parents=True, exist_ok=True)
    path, onnx = directory / f"{network.name}_int8.pt", None
    fields: dict[str, Any] = {"quantization": about}
    if static is not None:
        onnx = path.with_suffix(".onnx")
        write_atomically(onnx, static.content)
        digest = hashlib.sha256(static.content).hexdigest()
        fields["onnx"] = {"path": onnx.name, "sha256": digest}
    states = keep_states(network, lesson, directory)
    save_role(path, genome, int8_sidecar(network, directory, states, **fields))
    file = check_int8_file(path, genome)
    return load_role(f"{network.name}_int8", path), file, onnx


def _comparisons(network: Role, genome: Genome, refits: bool, states: States) -> dict[str, Any]:
    """Return how close the int8 network is to the float one, and how close plain rounding comes."""
    networks = {"float": network.network, "int8": dequantized(genome)}
    if refits:
        networks["plain"] = dequantized(quantized(network.network))
    values = all_q_values(networks, states)
    return {
        "comparison": fidelity(values["float"], values["int8"]),
        "comparison_without_refit": fidelity(values["float"], values["plain"]) if refits else None,
    }


def _onnx_report(
    network: Role, genome: Genome, static: StaticModel | None, path: Path | None, states: States
) -> dict[str, Any] | None:
    """Return what there is to say of the ONNX model; its values are those of ONNX Runtime."""
    if static is None:
        return None
    model = OnnxNetwork(genome.spec, static.content)
    values = np.asarray(model.q_values(states))
    alone = np.concatenate([model.q_values(states[i : i + 1]) for i in range(min(64, len(states)))])
    return {
        "path": str(path),
        "bytes": len(static.content),
        "linear_layers_quantized": static.linear_layers_quantized,
        "stays_float": list(static.stays_float),
        "comparison": fidelity(network.network.q_values(states), values),
        "same_actions_in_any_batch": bool(
            (alone.argmax(axis=1) == values[: len(alone)].argmax(axis=1)).all()
        ),
    }
