"""Validation of a child as a stage: find it and its parents, judge them, let them play, report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StageError
from engine.stages.distillation.teachers import HIDDEN_FLAG, Sizes
from engine.stages.reports.text import write_reports
from engine.stages.roles import Role, environment_of, load_role, load_source
from engine.stages.states import evaluation_states
from engine.stages.validation.child import validate_child
from engine.stages.validation.returns import NO_ENVIRONMENT, play_roles
from engine.stages.validation.role_checks import check_roles
from engine.stages.validation.thresholds import RecombinationThresholds
from engine.stages.validation.timing import LatencySettings

ROLES = ("parent_a", "parent_b", "child")
CHILD_FILES = ("child_finetuned.pt", "child.pt")
"""What a child is called in a directory; the first of these that is there is meant."""
REPORT = "recombination_validation"
NOT_ASKED = "no episodes were asked for (--episodes 0)"
DIFFERENT = "the sidecars name different environments; give --env to play one"


@dataclass(frozen=True)
class Found:
    """A child and its parents."""

    parent_a: Role
    parent_b: Role
    child: Role

    @property
    def by_name(self) -> dict[str, Role]:
        """The three by their names in the report."""
        return {"parent_a": self.parent_a, "parent_b": self.parent_b, "child": self.child}


@dataclass(frozen=True)
class Judging:
    """How a child is judged.

    Attributes:
        n_states: Most states, where no file is given.
        seed: Of synthetic states, of the choice among recorded ones, and of the episodes.
        states_file: A ``.npy`` file of states.
        use_training_states: Whether rows that were trained on will do.
        k_values: Values of k of the top-k agreements.
        latency: How latency is measured.
        thresholds: Limits that hold against each parent.
        include_parent_baseline: Whether the parents are compared with each other, too.
        environment: Gymnasium id to play; None for the one that the sidecars name.
        episodes: Episodes of each network; 0 for none.
    """

    n_states: int = 1000
    seed: int = 42
    states_file: Path | None = None
    use_training_states: bool = False
    k_values: tuple[int, ...] = (1, 2, 3)
    latency: LatencySettings = field(default_factory=LatencySettings)
    thresholds: RecombinationThresholds = field(default_factory=RecombinationThresholds)
    include_parent_baseline: bool = False
    environment: str | None = None
    episodes: int = 100


def find_family(
    directory: Path | None,
    files: dict[str, Path],
    quantized: frozenset[str] = frozenset(),
    sizes: Sizes | None = None,
    allow_unsafe: bool = False,
) -> Found:
    """Return a child and its parents.

    The child is its file, or else ``child_finetuned.pt`` or ``child.pt`` in ``directory``. A parent
    is its file, or else ``parent_A.pt`` (``parent_B.pt``) in ``directory``, or else what the
    sidecar of the child names.

    Args:
        directory: Where networks are.
        files: Explicit paths by ``parent_a``, ``parent_b``, ``child``.
        quantized: Those that are said to be quantized.
        sizes: What the networks must have; a width must be that of one of them.
        allow_unsafe: Whether files may run code while they are loaded.

    Raises:
        StageError: A file is not known, or is not what it is said to be.
        TeacherError: A file is missing, damaged, unsafe, or holds no network.
    """
    child = load_role("child", _child_file(directory, files), allow_unsafe)
    parents = {}
    for name, letter in (("parent_a", "A"), ("parent_b", "B")):
        beside = directory / f"parent_{letter}.pt" if directory is not None else None
        path = files.get(name) or (beside if beside is not None and beside.is_file() else None)
        if path is not None:
            parent = load_role(name, path, allow_unsafe)
        elif (named := load_source(child, name, name, allow_unsafe)) is not None:
            parent = named
        else:
            raise StageError(
                f"{child.path} has no sidecar that names {name}; give "
                f"--{name.replace('_', '-')}-ckpt"
            )
        parents[name] = parent
    found = Found(parents["parent_a"], parents["parent_b"], child)
    for name in sorted(quantized):
        role = found.by_name[name]
        if role.format == "float32" and not role.unsafe:  # imported int8 modules are dequantized
            flag = f"--{name.replace('_', '-')}-quantized"
            raise StageError(f"{flag} is given, but {role.path} is float32; leave {flag} out")
    _check_sizes(found, sizes or Sizes())
    return found


def validate_family(found: Found, judging: Judging) -> dict[str, Any]:
    """Judge a child against its parents on held-out states, and by the episodes that all play.

    Args:
        found: The networks.
        judging: How they are judged.

    Returns:
        The report of :func:`engine.stages.validation.child.validate_child`, with paths, formats,
        hashes, the record of the states, and ``returns``: of the three, and of the ensemble that
        takes the mean of the parents' Q-values.

    Raises:
        StageError: The networks, the states and the environment do not fit each other.
        TaskError: The environment is unknown or cannot be played.
    """
    roles = found.by_name
    states = evaluation_states(
        [found.child, found.parent_a, found.parent_b],
        judging.n_states,
        found.child.network.spec.n_inputs,
        judging.seed,
        judging.states_file,
        judging.use_training_states,
    )
    report = validate_child(
        found.parent_a.network,
        found.parent_b.network,
        found.child.network,
        states.states,
        judging.thresholds,
        judging.k_values,
        judging.latency,
        judging.include_parent_baseline,
    )
    return {
        **report,
        "states": report["states"] | states.record(),
        "model_paths": {name: str(role.path) for name, role in roles.items()},
        "model_formats": {name: role.format for name, role in roles.items()},
        "sha256": {name: role.sha256 for name, role in roles.items()},
        "unpickled": [name for name, role in roles.items() if role.unsafe],
        "returns": _returns(found, judging),
    }


def write_validation(directory: Path, report: dict[str, Any]) -> list[Path]:
    """Write ``recombination_validation.json``, ``.md`` and ``.csv``; return their paths."""
    write_reports(directory / REPORT, "Child and parents", report)
    return [directory / f"{REPORT}{suffix}" for suffix in (".json", ".md", ".csv")]


def _child_file(directory: Path | None, files: dict[str, Path]) -> Path:
    if "child" in files:
        return files["child"]
    if directory is None:
        raise StageError("the child is not known; give --child-ckpt, or --checkpoint-dir")
    paths = [directory / name for name in CHILD_FILES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise StageError(
            f"{directory}: expected {' or '.join(CHILD_FILES)}, but there is none; run 'cultivar "
            f"finetune --output-dir {directory}' first, or give --child-ckpt"
        )
    return path


def _check_sizes(found: Found, sizes: Sizes) -> None:
    """Refuse networks of different tasks, or of other sizes than the user says."""
    roles = {f"{name} ({role.path})": role.network for name, role in found.by_name.items()}
    n_inputs = found.child.network.spec.n_inputs
    check_roles(roles, np.zeros((1, n_inputs), np.float32))
    Sizes(sizes.n_inputs, sizes.n_actions).check(found.child)
    widths = {width for network in roles.values() for width in network.spec.hidden}
    if sizes.hidden is not None and sizes.hidden not in widths:
        has = ", ".join(map(str, sorted(widths)))
        raise StageError(
            f"{HIDDEN_FLAG} is {sizes.hidden}, but the networks have hidden layers of {has}; leave "
            "it out, widths are read from the files and may differ"
        )


def _returns(found: Found, judging: Judging) -> dict[str, Any]:
    roles = found.by_name
    environment, reason = judging.environment, NO_ENVIRONMENT
    if judging.episodes == 0:
        environment, reason = None, NOT_ASKED
    elif environment is None:
        environment = environment_of(*roles.values())
        if any(role.sidecar.get("environment") for role in roles.values()):
            reason = DIFFERENT
    return play_roles(
        {name: role.network for name, role in roles.items()},
        environment,
        judging.episodes,
        judging.seed,
        ensemble=("parent_a", "parent_b"),
        reason=reason,
    )
