"""Validation of distilled students as a stage: find the networks, judge them, play, report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import StageError
from engine.stages.distillation.teachers import Sizes
from engine.stages.reports.files import write_json, write_text
from engine.stages.reports.text import markdown, summary_markdown, write_csv
from engine.stages.roles import Role, environment_of, load_role, load_source
from engine.stages.states import evaluation_states
from engine.stages.validation.returns import NO_ENVIRONMENT, play_roles
from engine.stages.validation.student import validate_student
from engine.stages.validation.thresholds import Check, DistillationThresholds
from engine.stages.validation.timing import LatencySettings

NOT_ASKED = "no episodes were asked for (--episodes 0)"


@dataclass(frozen=True)
class Evaluation:
    """On what students are judged.

    Attributes:
        n_states: Most states, where no file is given.
        seed: Of synthetic states and of the robustness slices.
        states_file: A ``.npy`` file of states.
        use_training_states: Whether rows that were trained on will do.
        k_values: Values of k of the top-k agreements.
        robustness: Whether the robustness slices are measured.
        latency: How latency is measured.
        thresholds: Limits of the metrics.
    """

    n_states: int = 1000
    seed: int = 42
    states_file: Path | None = None
    use_training_states: bool = False
    k_values: tuple[int, ...] = (1, 2, 3)
    robustness: bool = True
    latency: LatencySettings = field(default_factory=LatencySettings)
    thresholds: DistillationThresholds = field(default_factory=DistillationThresholds)


@dataclass(frozen=True)
class Episodes:
    """What students and teachers play.

    Attributes:
        environment: Gymnasium id; None for the one that the sidecars name.
        number: Episodes of each network; 0 for none, None for 100 where an environment is known.
        seed: What the episodes are drawn from.
        max_steps: Steps after which an episode is cut off; None for the environment's own limit.
        max_return_drop: Greatest part of its teacher's mean return that a student may lose; None
            asks nothing.
        required: Whether it is an error that no environment is known.
    """

    environment: str | None = None
    number: int | None = None
    seed: int = 42
    max_steps: int | None = None
    max_return_drop: float | None = None
    required: bool = False

    def __post_init__(self) -> None:
        """Refuse a demand on episodes where none are played."""
        if self.number == 0 and (self.required or self.max_return_drop is not None):
            raise StageError(
                "--max-relative-return-drop and --sim-rollout need episodes; "
                "give --episodes a number of at least 1, not 0"
            )

    @property
    def is_demanded(self) -> bool:
        """Whether the user asked for something that takes an environment."""
        return bool(self.required or self.number or self.max_return_drop is not None)


@dataclass(frozen=True)
class Pair:
    """A student and its teacher."""

    label: str
    teacher: Role
    student: Role


def find_pair(
    label: str,
    directory: Path | None,
    student_file: Path | None = None,
    teacher_file: Path | None = None,
    sizes: Sizes | None = None,
    allow_unsafe: bool = False,
) -> Pair:
    """Return a student and the teacher it is to be compared with.

    The student is ``student_file`` or ``student_<label>.pt`` in ``directory``; the teacher is
    ``teacher_file``, or what the student's sidecar names, or ``parent_<label>.pt`` in
    ``directory``, or beside the student.

    Args:
        label: ``A`` or ``B``.
        directory: Where the networks are.
        student_file: Explicit path.
        teacher_file: Explicit path.
        sizes: What the teacher must have.
        allow_unsafe: Whether files may run code while they are loaded.

    Raises:
        StageError: A file is not known or not there, or the teacher has other sizes.
        TeacherError: A file is damaged, unsafe, or holds no network.
    """
    flag = label.lower()
    if student_file is None:
        if directory is None:
            raise StageError(
                f"student {label} is not known; give --checkpoint-dir, or --student-{flag}-ckpt"
            )
        student_file = directory / f"student_{label}.pt"
        if not student_file.is_file():
            raise StageError(
                f"{student_file}: expected a distilled student, but there is none; run 'cultivar "
                f"distill --output-dir {directory}' first, or choose with --pair"
            )
    student = load_role(f"student_{label}", student_file, allow_unsafe)
    name = f"parent_{label}"
    teacher: Role | None
    if teacher_file is not None:
        teacher = load_role(name, teacher_file, allow_unsafe)
    else:
        teacher = load_source(student, "teacher", name, allow_unsafe)
    if teacher is None:
        beside = (directory or student_file.parent) / f"{name}.pt"
        if not beside.is_file():
            raise StageError(
                f"{student_file} has no sidecar that names its teacher, and there is no {beside}; "
                f"give --parent-{flag}-ckpt"
            )
        teacher = load_role(name, beside, allow_unsafe)
    if sizes is not None:
        sizes.check(teacher)
    return Pair(label, teacher, student)


def validate_pair(pair: Pair, evaluation: Evaluation, episodes: Episodes) -> dict[str, Any]:
    """Judge a student on held-out states, and by the episodes that it and its teacher play.

    Args:
        pair: The networks.
        evaluation: On what they are compared.
        episodes: What they play.

    Returns:
        The report of ``validation.validate_student`` with ``pair``, ``checkpoints``, ``states``,
        ``returns`` and ``rollout``: their mean returns, and the part that the student lost.

    Raises:
        StageError: The networks do not fit each other, the states or the environment, or no
            environment is known but episodes are asked for.
        TaskError: The environment is unknown or cannot be played.
    """
    teacher, student = pair.teacher, pair.student
    # A teacher from elsewhere tells nothing of its states, and that is no secret of the student.
    judged = [student, *([teacher] if teacher.sidecar else [])]
    states = evaluation_states(
        judged,
        evaluation.n_states,
        student.network.spec.n_inputs,
        evaluation.seed,
        evaluation.states_file,
        evaluation.use_training_states,
    )
    report = validate_student(
        teacher.network,
        student.network,
        states.states,
        evaluation.thresholds,
        evaluation.k_values,
        evaluation.robustness,
        evaluation.latency,
        evaluation.seed,
    )
    report = {
        "pair": pair.label,
        "checkpoints": {"parent": str(teacher.path), "student": str(student.path)},
        "sha256": {"parent": teacher.sha256, "student": student.sha256},
        "formats": {"parent": teacher.format, "student": student.format},
        "unpickled": [role.name for role in (teacher, student) if role.unsafe],
        **report,
        "states": report["states"] | states.record(),
    }
    returns = _returns(pair, episodes)
    return _with_returns(report, returns, episodes.max_return_drop)


def write_validation(directory: Path, reports: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write the reports of students, by label.

    ``student_<label>_validation.json`` is a copy of ``distillation_validation_<label>.json``, which
    is where AgentFarm's pipeline document looks for it.

    Returns:
        What was written: for each label a JSON file, its copy, and Markdown; then one CSV file
        and one summary of all.
    """
    written = []
    for label, report in reports.items():
        stem = f"distillation_validation_{label}"
        for name in (f"{stem}.json", f"student_{label}_validation.json"):
            write_json(directory / name, report)
            written.append(directory / name)
        write_text(directory / f"{stem}.md", markdown(f"Distilled student {label}", report))
        written.append(directory / f"{stem}.md")
    table = directory / "distillation_validation_results.csv"
    write_csv(table, reports.values())
    summary = directory / "distillation_validation_summary.md"
    write_text(summary, summary_markdown("Distilled students", reports))
    return [*written, table, summary]


def relative_drop(teacher: float, student: float) -> float:
    """Return the part of the teacher's mean return that the student lost; negative for a gain.

    A loss from a return of exactly zero is infinite.
    """
    lost = teacher - student
    if teacher == 0:
        return math.copysign(math.inf, lost) if lost else 0.0
    return lost / abs(teacher)


def _returns(pair: Pair, episodes: Episodes) -> dict[str, Any]:
    environment = episodes.environment or environment_of(pair.student, pair.teacher)
    if environment is None and episodes.is_demanded:
        raise StageError(
            f"episodes are asked for, but neither {pair.student.path} nor {pair.teacher.path} "
            "says in which environment; give --env, for example --env CartPole-v1"
        )
    is_played = episodes.number != 0
    return play_roles(
        {"parent": pair.teacher.network, "student": pair.student.network},
        environment if is_played else None,
        100 if episodes.number is None else episodes.number,
        episodes.seed,
        reason=NO_ENVIRONMENT if is_played else NOT_ASKED,
        max_episode_steps=episodes.max_steps,
    )


def _with_returns(
    report: dict[str, Any], returns: Mapping[str, Any], limit: float | None
) -> dict[str, Any]:
    """Return a report with the returns, and with the check of a drop where there is a limit."""
    report = report | {"returns": returns, "rollout": None}
    if returns["environment"] is None:
        return report
    teacher, student = (returns["roles"][name]["mean"] for name in ("parent", "student"))
    drop = math.nan if None in (teacher, student) else relative_drop(teacher, student)
    rollout = {
        "parent_mean_return": teacher,
        "student_mean_return": student,
        "relative_drop": drop,
        "max_relative_return_drop": limit,
        "n_episodes": returns["episodes"],
        "max_steps": returns["max_episode_steps"],
        "base_seed": returns["seed"],
        "passed": None,
    }
    if limit is not None:
        check = Check("relative_return_drop", drop, limit, is_minimum=False)
        rollout["passed"] = check.passed
        report["checks"] = [*report["checks"], check.to_dict()]
        if not check.passed:
            reasons = [reason for reason in (report["reason"], check.describe()) if reason]
            report["failed"] = [*report["failed"], check.name]
            report |= {"reason": "; ".join(reasons), "passed": False}
    return report | {"rollout": rollout}
