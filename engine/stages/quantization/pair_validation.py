"""The stage that validates quantized networks: finding their counterparts, judging, reporting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import StageError
from engine.stages.distillation.teachers import Sizes
from engine.stages.quantization.weights import check_student_sizes
from engine.stages.reports.files import write_json
from engine.stages.reports.text import write_reports
from engine.stages.roles import Role, environment_of, load_role, load_source
from engine.stages.states import evaluation_states
from engine.stages.validation.quantized import validate_quantized
from engine.stages.validation.returns import NO_ENVIRONMENT, play_roles
from engine.stages.validation.role_checks import non_finite_tensor
from engine.stages.validation.thresholds import QuantizationThresholds
from engine.stages.validation.timing import LatencySettings, ThroughputSettings

NOT_ASKED = "--episodes is 0"
WITHOUT_FLAG = "--allow-unsafe-unpickle was not needed: int8 files of cultivar hold tensors alone"


@dataclass(frozen=True)
class Places:
    """Where the networks of one pair are looked for.

    Attributes:
        quantized_file: The int8 network; else ``student_<label>_int8.pt``, or
            ``student_<label>_qat_int8.pt``, in ``quantized_dir``.
        quantized_dir: Its folder.
        float_file: The float network; else the one of the same name in ``float_dir``, or the one
            that the sidecar of the int8 network names.
        float_dir: Its folder.
        teacher_file: The teacher; else ``parent_<label>.pt`` in ``teacher_dir``, or the one that
            the sidecar of the float network names. There need not be one.
        teacher_dir: Its folder.
    """

    quantized_file: Path | None = None
    quantized_dir: Path | None = None
    float_file: Path | None = None
    float_dir: Path | None = None
    teacher_file: Path | None = None
    teacher_dir: Path | None = None


@dataclass(frozen=True)
class QuantizedPair:
    """A quantized network, its float original, and the teacher of both if it is at hand."""

    label: str
    original: Role
    quantized: Role
    teacher: Role | None


@dataclass(frozen=True)
class Judgement:
    """On what quantized networks are judged.

    Attributes:
        n_states: Most states, where no file is given.
        seed: Of synthetic states, and of the episodes.
        states_file: A ``.npy`` file of states.
        use_training_states: Whether rows that were trained on will do.
        k_values: Values of k of the top-k agreements; may be empty.
        latency: How latency is measured.
        throughput: How throughput is measured.
        track_memory: Whether the memory of the process is noted.
        thresholds: Limits of the metrics.
        environment: What to play; None for the one that the sidecars name.
        episodes: Episodes of each network; 0 for none.
    """

    n_states: int = 1000
    seed: int = 42
    states_file: Path | None = None
    use_training_states: bool = False
    k_values: tuple[int, ...] = (3,)
    latency: LatencySettings = field(default_factory=LatencySettings)
    throughput: ThroughputSettings = field(default_factory=ThroughputSettings)
    track_memory: bool = True
    thresholds: QuantizationThresholds = field(default_factory=QuantizationThresholds)
    environment: str | None = None
    episodes: int = 100


def find_quantized_pair(
    label: str, places: Places, sizes: Sizes | None = None, allow_unsafe: bool = False
) -> QuantizedPair:
    """Return a quantized network and what it is to be compared with.

    Args:
        label: ``A`` or ``B``.
        places: Where to look.
        sizes: What the teacher of the float network is said to have.
        allow_unsafe: Whether files may run code while they are loaded.

    Raises:
        StageError: A network is not known or not there, or is of another kind.
        TeacherError: A file is damaged, unsafe, or holds no network.
    """
    flag = label.lower()
    path = places.quantized_file or _in_folder(label, places.quantized_dir)
    quantized = load_role(f"student_{label}_int8", path, allow_unsafe)
    if quantized.genome is None and not quantized.unsafe and not _has_nan(quantized):
        raise StageError(
            f"{path}: expected an int8 network, but its weights are floating point; give one that "
            "'cultivar quantize' or 'cultivar qat' wrote"
        )
    name = f"student_{label}"
    if places.float_file is not None:
        original: Role | None = load_role(name, places.float_file, allow_unsafe)
    elif places.float_dir is not None:
        original = load_role(name, places.float_dir / _float_name(path), allow_unsafe)
    else:
        original = load_source(quantized, "float", name, allow_unsafe)
    if original is None:
        raise StageError(
            f"{path} has no sidecar that names its float original; give --float-dir or "
            f"--float-{flag}-ckpt"
        )
    if original.genome is not None:
        raise StageError(f"{original.path}: expected the float32 original, but it is int8")
    if sizes is not None:
        check_student_sizes(original, sizes)
    return QuantizedPair(
        label, original, quantized, _teacher(label, places, original, allow_unsafe)
    )


def validate_pair(pair: QuantizedPair, judgement: Judgement) -> dict[str, Any]:
    """Judge a quantized network on held-out states, and by the episodes that it plays.

    Returns:
        The report of ``validation.validate_quantized`` with ``pair``, ``checkpoints``, ``sha256``,
        ``formats``, ``unpickled``, ``benchmark``, ``states`` and ``returns``.

    Raises:
        StageError: The networks do not fit each other, the states or the environment.
        TaskError: The environment is unknown or cannot be played.
    """
    roles = {"float": pair.original, "quantized": pair.quantized}
    if pair.teacher is not None:
        roles["teacher"] = pair.teacher
    states = evaluation_states(
        [pair.original, pair.quantized],
        judgement.n_states,
        pair.original.network.spec.n_inputs,
        judgement.seed,
        judgement.states_file,
        judgement.use_training_states,
    )
    report = validate_quantized(
        pair.original.network,
        pair.quantized.network,
        states.states,
        judgement.thresholds,
        judgement.k_values,
        judgement.latency,
        judgement.throughput,
        judgement.track_memory,
        None if pair.teacher is None else pair.teacher.network,
        (_bytes(pair.original), _bytes(pair.quantized)),
        pair.quantized.sidecar.get("quantization"),
    )
    unpickled = [name for name, role in roles.items() if role.unsafe]
    environment = judgement.environment or environment_of(*roles.values())
    return {
        "pair": pair.label,
        "checkpoints": {name: str(role.path) for name, role in roles.items()},
        "sha256": {name: role.sha256 for name, role in roles.items()},
        "formats": {name: role.format for name, role in roles.items()},
        "unpickled": unpickled,
        "unpickling": None if unpickled else WITHOUT_FLAG,
        "benchmark": {
            "latency": asdict(judgement.latency),
            "throughput": asdict(judgement.throughput),
            "top_k": list(judgement.k_values),
        },
        **report,
        "states": report["states"] | states.record(),
        "returns": play_roles(
            {name: role.network for name, role in roles.items()},
            environment if judgement.episodes else None,
            judgement.episodes,
            judgement.seed,
            reason=NO_ENVIRONMENT if judgement.episodes else NOT_ASKED,
        ),
    }


def write_validation(directory: Path, reports: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write the reports of quantized networks, by label.

    ``student_<label>_quant_report.json`` is a copy of ``quantization_validation_<label>.json``,
    under the name that AgentFarm's pipeline document has.

    Returns:
        What was written: for each label JSON, Markdown, CSV, and the copy.
    """
    written = []
    for label, report in reports.items():
        stem = directory / f"quantization_validation_{label}"
        copy = directory / f"student_{label}_quant_report.json"
        write_reports(stem, f"Quantized student {label}", report)
        write_json(copy, report)
        written += [stem.with_suffix(suffix) for suffix in (".json", ".md", ".csv")]
        written.append(copy)
    return written


def _in_folder(label: str, directory: Path | None) -> Path:
    if directory is None:
        raise StageError(
            f"quantized student {label} is not known; give --checkpoint-dir, or "
            f"--quant-{label.lower()}-ckpt"
        )
    names = [f"student_{label}_int8.pt", f"student_{label}_qat_int8.pt"]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise StageError(
        f"{directory}: expected {' or '.join(names)}, but there is neither; run 'cultivar quantize "
        f"--output-dir {directory}' first, or choose with --pair"
    )


def _float_name(quantized: Path) -> str:
    return f"{quantized.stem.removesuffix('_int8')}.pt"


def _teacher(label: str, places: Places, original: Role, allow_unsafe: bool) -> Role | None:
    """Return the teacher; one that is only named by a sidecar may be gone."""
    name = f"parent_{label}"
    if places.teacher_file is not None:
        return load_role(name, places.teacher_file, allow_unsafe)
    if places.teacher_dir is not None:
        return load_role(name, places.teacher_dir / f"{name}.pt", allow_unsafe)
    try:
        return load_source(original, "teacher", name, allow_unsafe)
    except StageError:  # nobody asked for it
        return None


def _has_nan(role: Role) -> bool:
    return non_finite_tensor(role.network) is not None


def _bytes(role: Role) -> int | None:
    return None if role.path is None else role.path.stat().st_size
