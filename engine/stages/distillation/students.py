"""Distillation: train a network of half the width to imitate each teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import StageError
from engine.stages.distillation.teacher_states import environment_of_teachers, states_for_students
from engine.stages.distillation.teachers import (
    LABELS,
    STUDENT_STREAM,
    TeacherChoice,
    derived_seed,
    teachers_in,
)
from engine.stages.imitation.config import ImitationConfig
from engine.stages.imitation.jobs import Imitated, Job, imitate
from engine.stages.kept_states import check_no_rows_are_lost
from engine.stages.networks import STUDENT_DROPOUT, Network, initial_weights, student_spec
from engine.stages.roles import Role, load_role, save_role, sidecar
from engine.stages.state_sets import StateSet, save_state_set
from engine.stages.validation.fidelity import compare
from engine.stages.validation.role_checks import all_q_values

CONFIG_KEYS = (
    "temperature",
    "temp_decay",
    "alpha",
    "learning_rate",
    "epochs",
    "batch_size",
    "max_grad_norm",
    "val_fraction",
    "loss_fn",
    "normalise_q",
    "calibration",
)
"""Settings of the training that a sidecar keeps; distillation leaves the others alone."""


@dataclass(frozen=True)
class Student:
    """A distilled student.

    Attributes:
        role: The student as it was written.
        teacher: What it imitates.
        outcome: How its training went.
        heldout: Its fidelity to the teacher on held-out states; see ``fidelity.compare``.
    """

    role: Role
    teacher: Role
    outcome: Imitated
    heldout: dict[str, Any]


def run_distillation(
    directory: Path,
    choice: TeacherChoice,
    config: ImitationConfig,
    n_states: int | None = None,
    states_file: Path | None = None,
    heldout_fraction: float = 0.1,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Student]:
    """Find or draw teachers and states, train the students and write everything.

    What is written for a student does not depend on which others are trained beside it, and a
    teacher given by a file has its part in the states whether or not its student is asked for.

    Args:
        directory: Gets ``student_A.pt`` and ``student_B.pt`` with sidecars, ``states.npz``, and
            ``parent_A.pt`` and ``parent_B.pt`` where a teacher is drawn at random.
        choice: The teachers, and whose students are wanted.
        config: How students learn; its seed is that of ``choice``.
        n_states: Rows to train on; see ``teacher_states.states_for_students``.
        states_file: A ``.npy`` file of states.
        heldout_fraction: Share of played states, or of those of a file, that is put aside.
        tell: Is told, in single lines, how things go.

    Returns:
        The students by label.

    Raises:
        StageError: Teachers or states cannot be used, or a file cannot be written.
        TeacherError: The file of a teacher is missing, damaged, unsafe, or holds no network.
        TaskError: The environment is unknown or cannot be played.
    """
    _check_teachers_stay(directory, choice)
    teachers = teachers_in(directory, choice)
    given = [teachers[label] for label in LABELS if label in choice.files]
    players = given or list(teachers.values())
    environment = environment_of_teachers(players, choice.environment)
    states = states_for_students(
        players, environment, n_states, choice.seed, states_file, heldout_fraction, tell
    )
    wanted = {label: teachers[label] for label in choice.labels}
    return distill(directory, wanted, states, config, environment)


def distill(
    directory: Path,
    teachers: Mapping[str, Role],
    states: StateSet,
    config: ImitationConfig,
    environment: str | None = None,
) -> dict[str, Student]:
    """Train a student of every teacher, side by side, and write them with their states.

    Args:
        directory: Gets ``student_<label>.pt`` with sidecars, and ``states.npz``.
        teachers: By label, ``A`` or ``B``; of any widths, with the same inputs and actions.
        states: What they train on, and what they are measured on.
        config: How they learn.
        environment: What the teachers play, for the sidecars.

    Raises:
        StageError: A teacher cannot be imitated, or a file cannot be written.
    """
    written = [student_path(directory, label) for label in teachers]
    check_no_rows_are_lost(directory, states, teachers.values(), written)
    jobs = [
        Job(
            _start(label, teacher, config),
            (teacher.network,),
            config,
            dropout=STUDENT_DROPOUT,
        )
        for label, teacher in teachers.items()
    ]
    outcomes = dict(zip(teachers, imitate(jobs, states.train), strict=True))
    directory.mkdir(parents=True, exist_ok=True)
    save_state_set(directory, states)
    students = {}
    for label, outcome in outcomes.items():
        teacher = teachers[label]
        values = all_q_values(
            {"teacher": teacher.network, "student": outcome.network}, states.heldout
        )
        heldout = compare(values["teacher"], values["student"])
        path = student_path(directory, label)
        about = sidecar(
            "student",
            outcome.network.spec,
            STUDENT_DROPOUT,
            pair=label,
            sources={"teacher": teacher.source(directory)},
            states=states.record(),
            environment=environment,
            seed=config.resolved_seed,
            config=_record(config),
            metrics=outcome.metrics() | {"heldout": heldout},
        )
        save_role(path, outcome.network, about)
        students[label] = Student(load_role(path.stem, path), teacher, outcome, heldout)
    return students


def student_path(directory: Path, label: str) -> Path:
    """Return where the student of a teacher is written."""
    return directory / f"student_{label}.pt"


def _check_teachers_stay(directory: Path, choice: TeacherChoice) -> None:
    """Refuse to overwrite a teacher with a student."""
    written = {student_path(directory, label).resolve() for label in choice.labels}
    for label, path in choice.files.items():
        if path.resolve() in written:
            raise StageError(
                f"{path} is the teacher of --parent-{label.lower()}-ckpt, and would be overwritten "
                "with a student; choose another --output-dir"
            )


def _start(label: str, teacher: Role, config: ImitationConfig) -> Network:
    """Return the untrained student of a teacher."""
    spec = student_spec(teacher.network.spec)
    seed = derived_seed(config.resolved_seed, STUDENT_STREAM, LABELS.index(label))
    return Network(spec, initial_weights(spec, seed))


def _record(config: ImitationConfig) -> dict[str, Any]:
    """Return the settings for a sidecar; ``final_temperature`` is that of the last epoch."""
    settings = asdict(config)
    kept = {name: settings[name] for name in CONFIG_KEYS}
    last = config.temperature * config.temp_decay ** (config.epochs - 1)
    return {**kept, "seed": config.resolved_seed, "final_temperature": last}
