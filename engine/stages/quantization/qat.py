"""Quantization-aware training: fine-tune a student through the int8 codec, and export it as int8.

Whether that pays is measured, not assumed: beside it stand the student that was only quantized, and
a control that was fine-tuned in the same way without the codec and quantized then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.stages.imitation.config import ImitationConfig
from engine.stages.imitation.jobs import Imitated, Job, imitate
from engine.stages.quantization.calibration import Lesson, keep_states
from engine.stages.quantization.int8_file import check_int8_file
from engine.stages.quantization.weights import (
    check_is_float,
    dequantized,
    dropout_of,
    fidelity,
    int8_sidecar,
    quantized,
)
from engine.stages.reports.files import write_json
from engine.stages.roles import Role, environment_of, load_role, save_role, sidecar
from engine.stages.states import evaluation_states
from engine.stages.validation.fidelity import Z_95, compare
from engine.stages.validation.role_checks import all_q_values
from populations.genome import Genome

STUDENT, STUDENT_INT8 = "student", "student_ptq_int8"
QAT, QAT_INT8 = "qat", "qat_int8"
CONTROL_INT8 = "control_ptq_int8"
NOTES = [
    "trained through the int8 codec: weights are rounded in the forward pass, gradients pass "
    "through (straight-through estimator), and the best epoch is chosen on rounded weights",
    "weights alone are quantized; activations are float32",
    "control: the same training without the codec, quantized afterwards",
]


def train_quantization_aware(
    student: Role,
    teacher: Role,
    directory: Path,
    config: ImitationConfig,
    lesson: Lesson,
    convert: bool = True,
    use_training_states: bool = False,
) -> dict[str, Any]:
    """Fine-tune a student towards its teacher through the int8 codec, and judge what that gains.

    Args:
        student: A float32 network, for example ``student_A``.
        teacher: What it imitates.
        directory: Gets ``<name>_qat.pt``, ``<name>_qat_int8.pt``, their sidecars, and
            ``qat_report_<label>.json``; the label is what follows the last ``_`` of the name.
        config: How it learns.
        lesson: What it learns on; the output layer is refitted on the same states.
        convert: Whether to write the int8 network.
        use_training_states: Compare on states that were trained on.

    Returns:
        The report.

    Raises:
        StageError: The networks do not fit each other, or a file cannot be written.
    """
    check_is_float(student)
    start = time.perf_counter()
    trained, control = _train(student, teacher, config, lesson)
    elapsed = time.perf_counter() - start
    genome = quantized(trained.network, lesson.states)
    role = _write_float(student, teacher, directory, config, lesson, trained)
    int8 = _write_int8(role, directory, genome) if convert else None
    judged = evaluation_states(
        [role, student],
        None,
        genome.spec.n_inputs,
        config.resolved_seed,
        use_training_states=use_training_states,
    )
    networks = {
        "teacher": teacher.network,
        STUDENT: student.network,
        STUDENT_INT8: dequantized(quantized(student.network, lesson.states)),
        QAT: trained.network,
        QAT_INT8: dequantized(genome),
        "control": control.network,
        CONTROL_INT8: dequantized(quantized(control.network, lesson.states)),
    }
    values = all_q_values(networks, judged.states)
    label = student.name.rpartition("_")[2]
    report = {
        "pair": label,
        "teacher_checkpoint": str(teacher.path),
        "student_checkpoint": str(student.path),
        "qat_config": _settings(config),
        "qat_metrics": trained.metrics() | {"elapsed_seconds": elapsed},
        "control_metrics": control.metrics(),
        "float_qat_checkpoint": str(role.path),
        "int8_checkpoint": None if int8 is None else str(int8["path"]),
        "int8_file": int8,
        "comparison_float_vs_qat_int8": fidelity(values[QAT], values[QAT_INT8]),
        "comparison_with_teacher": {
            name: compare(values["teacher"], values[name]) for name in networks if name != "teacher"
        },
        "gain_of_qat": {
            f"over_{name}": paired_gain(values, QAT_INT8, name)
            for name in (STUDENT_INT8, CONTROL_INT8)
        },
        "training_states": {"source": lesson.source, "n_states": len(lesson.states)},
        "states": judged.record(),
    }
    write_json(directory / f"qat_report_{label}.json", report)
    return report


def paired_gain(values: Mapping[str, NDArray[np.float32]], name: str, other: str) -> dict[str, Any]:
    """Return by how much one network agrees more with the teacher than another one.

    Args:
        values: Q-values ``(N, A)`` by name, of the same states; ``teacher`` among them.
        name: The network.
        other: The other one.

    Returns:
        ``difference`` of the two agreements and ``ci95``, its normal interval from the variance of
        the difference state by state; ``is_clear``, whether that leaves out zero.
    """
    best = values["teacher"].argmax(axis=1)
    hits, others = (values[key].argmax(axis=1) == best for key in (name, other))
    differences = hits.astype(np.float64) - others
    mean = float(differences.mean())
    half = Z_95 * float(differences.std()) / math.sqrt(len(differences))
    return {"difference": mean, "ci95": [mean - half, mean + half], "is_clear": abs(mean) > half}


def _train(
    student: Role, teacher: Role, config: ImitationConfig, lesson: Lesson
) -> tuple[Imitated, Imitated]:
    """Return the student trained through the codec, and the control."""
    jobs = [
        Job(student.network, (teacher.network,), config, dropout=dropout_of(student), int8=int8)
        for int8 in (True, False)
    ]
    trained, control = imitate(jobs, lesson.states)
    return trained, control


def _write_float(
    student: Role,
    teacher: Role,
    directory: Path,
    config: ImitationConfig,
    lesson: Lesson,
    trained: Imitated,
) -> Role:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{student.name}_qat.pt"
    about = sidecar(
        str(student.sidecar.get("kind", "student")),
        student.network.spec,
        dropout_of(student),
        pair=student.sidecar.get("pair"),
        sources={"student": student.source(directory), "teacher": teacher.source(directory)},
        states=keep_states(student, lesson, directory),
        environment=environment_of(student, teacher),
        seed=config.resolved_seed,
        config=_settings(config) | {"scope": "weight_only"},
        metrics=trained.metrics(),
        notes=NOTES,
    )
    save_role(path, trained.network, about)
    return load_role(path.stem, path)


def _write_int8(role: Role, directory: Path, genome: Genome) -> dict[str, Any]:
    """Write the int8 network, and return what was read back from its file."""
    path = directory / f"{role.name}_int8.pt"
    config = role.sidecar["config"]
    about = {
        "mode": "qat",
        "dtype": "qint8",
        "backend": "none",
        "refit": True,
        "linear_layers_quantized": len(genome.spec.matrices),
        "notes": NOTES,
    }
    kept = ("epochs", "learning_rate", "batch_size", "loss_fn", "scope")
    fields = {"quantization": about, "qat": {name: config[name] for name in kept}}
    states = role.sidecar.get("states")
    save_role(path, genome, int8_sidecar(role, directory, states, **fields))
    file = check_int8_file(path, genome)
    return {
        "path": str(path),
        "linear_layers_quantized": file.linear_layers,
        "float_param_bytes": 4 * role.network.n_parameters,
        "quantized_param_bytes": file.tensor_bytes,
        "quantized_checkpoint_bytes": file.file_bytes,
    }


def _settings(config: ImitationConfig) -> dict[str, Any]:
    names = (
        "epochs",
        "learning_rate",
        "batch_size",
        "max_grad_norm",
        "val_fraction",
        "loss_fn",
        "temperature",
        "alpha",
        "calibration",
    )
    settings = asdict(config)
    return {
        **{name: settings[name] for name in names},
        "seed": config.resolved_seed,
        "dtype": "qint8",
    }
