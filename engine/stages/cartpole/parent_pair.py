"""The two parents of the CartPole pipelines: given, found in the folder of the run, or trained."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import StageError
from engine.stages.cartpole.asked_training import (
    HIDDEN,
    AskedTraining,
    check_asked,
    settings_of,
)
from engine.stages.cartpole.parent_settings import LABELS, N_ACTIONS, N_INPUTS, ParentSettings
from engine.stages.cartpole.parents import train_parents
from engine.stages.networks import teacher_spec
from engine.stages.roles import Role, load_role
from engine.stages.validation.role_checks import check_roles, non_finite_tensor

Origin = Literal["given", "reused", "trained"]


@dataclass(frozen=True)
class PairChoice:
    """Which parents there are to be.

    Attributes:
        files: The file of a parent by label, ``A`` or ``B``; the others are those of the folder
            of the run, or are trained.
        training: How parents are trained.
        asked: Which settings of the training the user gave, and their flags. A width that was not
            given is that of a parent which is there.
        force_train: Whether parents of the folder are trained again.
        allow_unsafe: Whether files may run code while they are loaded.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    training: ParentSettings = field(default_factory=ParentSettings)
    asked: AskedTraining = field(default_factory=AskedTraining)
    force_train: bool = False
    allow_unsafe: bool = False


@dataclass(frozen=True)
class Parent:
    """A parent.

    Attributes:
        role: The network.
        origin: Whether its file was given, found in the folder of the run, or written now.
    """

    role: Role
    origin: Origin

    def record(self) -> dict[str, Any]:
        """Return what a report tells of it; ``settings`` has what is known of its training."""
        return {
            "origin": self.origin,
            "path": str(self.role.path),
            "sha256": self.role.sha256,
            "format": self.role.format,
            "n_parameters": self.role.network.n_parameters,
            "seed": self.role.sidecar.get("seed"),
            "settings": settings_of(self.role),
            "needed_unsafe_unpickle": self.role.unsafe,
        }


def find_parents(
    directory: Path,
    choice: PairChoice,
    written: Collection[str],
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Parent]:
    """Return both parents by label, after training those that there are none of.

    Args:
        directory: The folder of the run; gets the files of :func:`cartpole_parents.train_parents`.
        choice: Which parents.
        written: Names of the other files that the run writes there.
        tell: Is told, in single lines, how things go.

    Raises:
        StageError: A parent does not play CartPole, holds NaN, is of another architecture than
            the other one, was trained otherwise than the user asks, or would be overwritten.
        TeacherError: A file is missing, damaged, unsafe, or holds no network.
    """
    origins: dict[str, Origin] = {}
    for label in LABELS:
        is_there = (directory / f"parent_{label}.pt").is_file() and not choice.force_train
        origins[label] = "given" if label in choice.files else "reused" if is_there else "trained"
    trained = [label for label in LABELS if origins[label] == "trained"]
    _check_not_overwritten(directory, choice, [*written, *_files_of(trained)])
    there = {}
    for label in LABELS:  # all of this before time is spent on training
        if origins[label] != "trained":
            path = choice.files.get(label, directory / f"parent_{label}.pt")
            there[label] = load_role(f"parent_{label}", path, choice.allow_unsafe)
            _check(there[label])
            _check_training(there[label], label, origins, choice, tell)
    _check_same_architecture(list(there.values()))
    if trained:
        settings = _training(choice, tuple(trained), list(there.values()))
        train_parents(settings, directory, tell)
    parents = {}
    for label in LABELS:
        path = directory / f"parent_{label}.pt"
        role = there.get(label) or load_role(f"parent_{label}", path)
        parents[label] = Parent(role, origins[label])
        tell(f"parent {label}: {_described(parents[label], choice.training.seed_of(label))}")
    return parents


def _check_training(
    role: Role,
    label: str,
    origins: Mapping[str, Origin],
    choice: PairChoice,
    tell: Callable[[str], None],
) -> None:
    """Refuse flags that contradict a parent, and tell of those of which nothing is known."""
    is_given, trains_other = origins[label] == "given", "trained" in origins.values()
    unknown = check_asked(role, label, is_given, trains_other, choice.training, choice.asked)
    if unknown:
        tell(
            f"note: {', '.join(unknown)} changes nothing: parent {label} is {origins[label]}, and "
            f"how it was trained is not recorded beside {role.path}"
        )


def _training(choice: PairChoice, labels: tuple[str, ...], there: Sequence[Role]) -> ParentSettings:
    """Return the settings of the parents that are trained, to fit the one that is there.

    Raises:
        StageError: None of the parents trained here fits it.
    """
    settings = dataclasses.replace(choice.training, labels=labels)
    for role in there:
        spec = role.network.spec
        if HIDDEN not in choice.asked.given:
            settings = dataclasses.replace(settings, hidden=spec.hidden[0])
        ours = teacher_spec(N_INPUTS, N_ACTIONS, settings.hidden)
        if (spec.hidden, spec.norm) != (ours.hidden, ours.norm):
            raise StageError(
                f"{role.path} has hidden layers of {spec.hidden}, norm {spec.norm}; parents "
                "trained here have two layers of one width with layer norms, and both must have "
                "one architecture, so give the other parent, too"
            )
    return settings


def _check_same_architecture(roles: Sequence[Role]) -> None:
    for a, b in itertools.pairwise(roles):
        one, other = a.network.spec, b.network.spec
        if (one.hidden, one.norm) != (other.hidden, other.norm):
            raise StageError(
                f"{a.path} has hidden layers of {one.hidden} and {b.path} of {other.hidden}; "
                "networks are crossed only if they have one architecture, so give parents of the "
                "same --hidden-size"
            )


def _files_of(trained: Collection[str]) -> list[str]:
    """Return the names of the files that training some parents writes."""
    endings = ("parent_{}.pt", "parent_{}_int8.pt", "replay_states_{}.npy")
    return [ending.format(label) for label in trained for ending in endings]


def _check_not_overwritten(directory: Path, choice: PairChoice, names: Collection[str]) -> None:
    targets = {(directory / name).resolve() for name in names}
    for label, path in choice.files.items():
        if path.resolve() in targets:
            raise StageError(
                f"{path}: given as parent {label}, but this run would overwrite it; choose another "
                "--output-dir, or give the other parent too"
            )


def _check(role: Role) -> None:
    """Refuse a network that cannot play CartPole.

    Raises:
        StageError: As said.
    """
    spec = role.network.spec
    if (spec.n_inputs, spec.n_actions) != (N_INPUTS, N_ACTIONS):
        raise StageError(
            f"{role.path}: expected a network of CartPole's 4 inputs and 2 actions, not of "
            f"{spec.n_inputs} and {spec.n_actions}"
        )
    check_roles({role.name: role.network}, np.zeros((1, N_INPUTS), np.float32))
    tensor = non_finite_tensor(role.network)
    if tensor is not None:
        raise StageError(f"{role.path}: {tensor} holds NaN or infinity; give another parent")


def _described(parent: Parent, seed: int) -> str:
    recorded = parent.role.sidecar.get("seed")
    text = f"{parent.origin}, {parent.role.path}"
    if parent.origin == "reused" and recorded != seed:
        text += f", trained with seed {recorded} and not {seed} (--force-train trains it again)"
    return text
