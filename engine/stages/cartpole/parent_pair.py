"""The two parents of the CartPole pipelines: given, found in the folder of the run, or trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import StageError
from engine.stages.cartpole.parent_settings import LABELS, ParentSettings
from engine.stages.cartpole.parents import train_parents
from engine.stages.roles import Role, load_role
from engine.stages.validation.role_checks import check_roles, non_finite_tensor

Origin = Literal["given", "reused", "trained"]
N_INPUTS, N_ACTIONS = 4, 2


@dataclass(frozen=True)
class PairChoice:
    """Which parents there are to be.

    Attributes:
        files: The file of a parent by label, ``A`` or ``B``; the others are those of the folder
            of the run, or are trained.
        training: How parents are trained.
        force_train: Whether parents of the folder are trained again.
        allow_unsafe: Whether files may run code while they are loaded.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    training: ParentSettings = field(default_factory=ParentSettings)
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

    def record(self, directory: Path) -> dict[str, Any]:
        """Return what a report in ``directory`` tells of it."""
        return {
            "origin": self.origin,
            **self.role.source(directory),
            "format": self.role.format,
            "n_parameters": self.role.network.n_parameters,
            "seed": self.role.sidecar.get("seed"),
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
            the other one, or its file would be overwritten.
        TeacherError: A file is missing, damaged, unsafe, or holds no network.
    """
    origins: dict[str, Origin] = {}
    for label in LABELS:
        is_there = (directory / f"parent_{label}.pt").is_file() and not choice.force_train
        origins[label] = "given" if label in choice.files else "reused" if is_there else "trained"
    trained = [label for label in LABELS if origins[label] == "trained"]
    _check_not_overwritten(directory, choice, [*written, *_files_of(trained)])
    given = {
        label: load_role(f"parent_{label}", choice.files[label], choice.allow_unsafe)
        for label in LABELS
        if origins[label] == "given"
    }
    for role in given.values():
        _check(role)  # before time is spent on training
    if trained:
        settings = dataclasses.replace(choice.training, labels=tuple(trained))
        train_parents(settings, directory, tell)
    parents = {}
    for label in LABELS:
        path = directory / f"parent_{label}.pt"
        role = given.get(label) or load_role(f"parent_{label}", path, choice.allow_unsafe)
        _check(role)
        parents[label] = Parent(role, origins[label])
        tell(f"parent {label}: {_described(parents[label], choice.training.seed_of(label))}")
    a, b = (parents[label].role for label in LABELS)
    if a.network.spec.hidden != b.network.spec.hidden or a.network.spec.norm != b.network.spec.norm:
        raise StageError(
            f"{a.path} has hidden layers of {a.network.spec.hidden} and {b.path} of "
            f"{b.network.spec.hidden}; networks are crossed only if they have one architecture, "
            "so give parents of the same --hidden-size"
        )
    return parents


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
