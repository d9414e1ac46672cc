"""The teachers of the pipeline: read from files, or drawn at random and kept for later commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import StageError
from engine.stages.networks import TEACHER_DROPOUT, Network, initial_weights, teacher_spec
from engine.stages.roles import Role, load_role, save_role, sidecar
from engine.stages.validation.role_checks import non_finite_tensor
from populations.network import NetworkSpec

LABELS = ("A", "B")
HIDDEN_FLAG = "--hidden-size (--parent-hidden)"
"""The two names of one flag; which of them was typed is not known where sizes are checked."""
RANDOM = "random_teacher"
"""Kind, in the sidecar, of a teacher that was never trained."""
TEACHER_STREAM, STUDENT_STREAM = 4, 5
"""Numbers in the keys of derived seeds; 1 to 3 are those of the states."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that the user asks for; None where any will do.

    Attributes:
        n_inputs: Numbers in one state.
        n_actions: Number of actions.
        hidden: Units in each hidden layer of a teacher.
    """

    n_inputs: int | None = None
    n_actions: int | None = None
    hidden: int | None = None

    def teacher(self) -> NetworkSpec:
        """Return the architecture of a random teacher; 8 inputs, 4 actions, 64 units by default.

        Raises:
            StageError: There is nothing to choose between.
        """
        n_actions = 4 if self.n_actions is None else self.n_actions
        if n_actions < 2:
            raise StageError(f"--output-dim must be at least 2, not {n_actions}")
        return teacher_spec(self.n_inputs or 8, n_actions, self.hidden or 64)

    def check(self, role: Role) -> None:
        """Refuse a network of other sizes.

        Raises:
            StageError: As said.
        """
        spec = role.network.spec
        found = {
            "--input-dim": (self.n_inputs, {spec.n_inputs}),
            "--output-dim": (self.n_actions, {spec.n_actions}),
            HIDDEN_FLAG: (self.hidden, set(spec.hidden)),
        }
        for flag, (wanted, sizes) in found.items():
            if wanted is not None and sizes != {wanted}:
                has = " and ".join(map(str, sorted(sizes))) or "none"
                raise StageError(
                    f"{flag} is {wanted}, but {role.name} ({role.path}) has {has}; "
                    f"leave out {flag}, it is read from the file"
                )


@dataclass(frozen=True)
class TeacherChoice:
    """Which teachers there are to be.

    Attributes:
        labels: Which of them students are wanted of.
        files: The file of a teacher by label; one without is drawn at random.
        sizes: Of random teachers; what files must have, where given.
        seed: Of random teachers.
        environment: What random teachers are said to play.
        allow_unsafe: Whether files may run code while they are loaded.
    """

    labels: tuple[str, ...] = LABELS
    files: Mapping[str, Path] = field(default_factory=dict)
    sizes: Sizes = Sizes()
    seed: int = 42
    environment: str | None = None
    allow_unsafe: bool = False


def derived_seed(seed: int, *path: int) -> int:
    """Return a seed in ``[0, 2**32)`` for one purpose; no seed leads to that of its neighbor."""
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1)[0])


def random_teacher_seed(label: str, seed: int) -> int:
    """Return the seed of a random teacher's weights: ``seed`` itself for A, a derived one for B.

    B does not get ``seed + 1``, or teacher B of one seed would be teacher A of the next one, and
    runs with different seeds would not be independent.
    """
    number = LABELS.index(label)
    return seed if number == 0 else derived_seed(seed, TEACHER_STREAM, number)


def teachers_in(directory: Path, choice: TeacherChoice) -> dict[str, Role]:
    """Return the teachers by label, those of ``choice.files`` and those of ``choice.labels``.

    A random teacher is written as ``parent_<label>.pt``, over a random one of an earlier run but
    over nothing else.

    Args:
        directory: Where random teachers are written.
        choice: Which ones.

    Raises:
        StageError: A teacher holds NaN, or has other sizes than asked for or than the other one; a
            trained teacher would be overwritten.
        TeacherError: A file is missing, damaged, unsafe, or holds no network.
    """
    loaded = {
        label: _loaded(label, choice.files[label], choice)
        for label in LABELS
        if label in choice.files
    }
    _check_alike(list(loaded.values()))
    # What is drawn beside a given teacher is like it, so that their students can be crossed.
    given = [role.network.spec for role in loaded.values()]
    spec = given[0] if given else choice.sizes.teacher()
    missing = [label for label in choice.labels if label not in loaded]
    for label in missing:
        _check_may_be_written(_random_path(directory, label), label)
    drawn = {label: _drawn(label, directory, spec, choice) for label in missing}
    return {label: (loaded | drawn)[label] for label in LABELS if label in loaded | drawn}


def _loaded(label: str, path: Path, choice: TeacherChoice) -> Role:
    role = load_role(f"parent_{label}", path, choice.allow_unsafe)
    choice.sizes.check(role)
    tensor = non_finite_tensor(role.network)
    if tensor is not None:
        raise StageError(
            f"{path}: expected a teacher with finite weights, but {tensor} holds NaN or infinity; "
            "train it again"
        )
    if role.network.spec.n_actions < 2:
        raise StageError(f"{path}: expected a teacher of at least 2 actions, not 1")
    return role


def _check_alike(roles: Sequence[Role]) -> None:
    """Refuse teachers of different tasks."""
    for role in roles[1:]:
        first, other = roles[0].network.spec, role.network.spec
        if (first.n_inputs, first.n_actions) != (other.n_inputs, other.n_actions):
            raise StageError(
                f"{roles[0].name} ({roles[0].path}) has {first.n_inputs} inputs and "
                f"{first.n_actions} actions, but {role.name} ({role.path}) has {other.n_inputs} "
                f"and {other.n_actions}; give teachers of one task"
            )


def _random_path(directory: Path, label: str) -> Path:
    return directory / f"parent_{label}.pt"


def _check_may_be_written(path: Path, label: str) -> None:
    if path.exists() and load_role(path.stem, path).sidecar.get("kind") != RANDOM:
        raise StageError(
            f"{path} is a trained teacher that a random one would replace; to distill it, pass "
            f"--parent-{label.lower()}-ckpt {path}, or choose another --output-dir"
        )


def _drawn(label: str, directory: Path, spec: NetworkSpec, choice: TeacherChoice) -> Role:
    """Draw a random teacher and write it."""
    seed = random_teacher_seed(label, choice.seed)
    path = _random_path(directory, label)
    about = sidecar(RANDOM, spec, TEACHER_DROPOUT, seed=seed, environment=choice.environment)
    directory.mkdir(parents=True, exist_ok=True)
    save_role(path, Network(spec, initial_weights(spec, seed)), about)
    return load_role(f"parent_{label}", path)
