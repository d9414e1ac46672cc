"""Post-training quantization: an int8 network out of a float one, without training.

Weights are rounded to int8, one scale per output row (:mod:`populations.quantization`), and
multiplied back when they are used, so activations are float32 and the action in a state does not
depend on what else is in the batch. On states that the network was trained on, its output layer is
fitted to make up for what rounding changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StageError
from engine.learning.rounding import round_network
from engine.stages.distillation.teachers import HIDDEN_FLAG, Sizes
from engine.stages.networks import STUDENT_DROPOUT, Network, student_spec, teacher_spec
from engine.stages.roles import Role, sidecar
from engine.stages.validation.fidelity import compare
from engine.stages.validation.role_checks import non_finite_tensor
from populations.genome import Genome, Lineage

STUDENT = Lineage("student", 0, 0)


def quantized(
    network: Network,
    calibration_states: NDArray[np.float32] | None = None,
    lineage: Lineage = STUDENT,
) -> Genome:
    """Quantize a network, and let its output layer make up for it where states are given.

    Args:
        network: A float32 network.
        calibration_states: States as it will meet them, ``(N, n_inputs)``. With them, the network
            is rounded by :func:`engine.learning.rounding.round_network`.
        lineage: Where it comes from; an empty ``basis`` becomes the id of the genome.

    Raises:
        GenomeShapeError: The weights are not those of the architecture.
        GenomeValueError: A weight, or a Q-value on these states, is NaN or infinite.
    """
    if calibration_states is None or len(calibration_states) == 0:
        return Genome.from_weights(network.spec, network.weights, lineage)
    return round_network(network.spec, network.weights, calibration_states, lineage)


def dequantized(genome: Genome) -> Network:
    """Return the float32 network that a genome stands for."""
    return Network(genome.spec, genome.to_weights())


def fidelity(reference: NDArray[np.float32], query: NDArray[np.float32]) -> dict[str, Any]:
    """Return the metrics of :func:`fidelity.compare`, with AgentFarm's names for some of them.

    Args:
        reference: Q-values of the float network, ``(N, A)``.
        query: Those of the quantized one.
    """
    metrics = compare(reference, query)
    return {
        **metrics,
        "n_states": len(reference),
        "mse_logits": metrics["mse"],
        "kl_divergence_float_vs_quant": metrics["kl_divergence"],
    }


def check_is_float(role: Role) -> None:
    """Refuse what cannot be quantized.

    Raises:
        StageError: The network is int8 already, or holds NaN or infinity.
    """
    if role.genome is not None:
        raise StageError(f"{role.path}: expected a float32 network, but it is int8 already")
    tensor = non_finite_tensor(role.network)
    if tensor is not None:
        raise StageError(
            f"{role.path}: cannot be quantized, as {tensor} holds NaN or infinity; train it again"
        )


def dropout_of(role: Role) -> float:
    """Return the dropout that a network is trained with, as its sidecar tells; else a student's."""
    recorded = role.sidecar.get("architecture", {}).get("dropout")
    return float(recorded) if isinstance(recorded, int | float) else STUDENT_DROPOUT


def int8_sidecar(
    source: Role, directory: Path, states: dict[str, Any] | None, **fields: Any
) -> dict[str, Any]:
    """Return the sidecar of the int8 counterpart of a float network.

    Args:
        source: The float network.
        directory: Where the int8 file is written.
        states: Record of the states it was calibrated or trained on.
        **fields: What else to tell.
    """
    about = source.sidecar
    return sidecar(
        str(about.get("kind", "network")),
        source.network.spec,
        dropout_of(source),
        pair=about.get("pair"),
        sources={"float": source.source(directory)},
        states=states,
        environment=about.get("environment"),
        seed=about.get("seed"),
        **fields,
    )


def check_student_sizes(student: Role, sizes: Sizes) -> None:
    """Refuse a student of other sizes than those that the user says its teacher has.

    Raises:
        StageError: As said.
    """
    Sizes(sizes.n_inputs, sizes.n_actions).check(student)
    if sizes.hidden is None:
        return
    spec = student.network.spec
    expected = student_spec(teacher_spec(spec.n_inputs, spec.n_actions, sizes.hidden)).hidden
    if spec.hidden != expected:
        raise StageError(
            f"{HIDDEN_FLAG} is {sizes.hidden}, whose student has hidden layers of {expected}, "
            f"but {student.name} ({student.path}) has {spec.hidden}; leave it out, sizes are read "
            "from the file"
        )
