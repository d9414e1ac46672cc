"""The states of the pipeline: what a stage trains on, and what a network is judged on.

A network is judged on states that neither it nor anything it was made from was trained on, as far
as their sidecars tell. The sets that stages train on are made in :mod:`engine.stages.state_sets`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StageError
from engine.stages.roles import LARGEST_SIDECAR, Role, lineage
from engine.stages.state_sets import (
    MIN_ROWS,
    STATES_FILE,
    SYNTHETIC,
    States,
    StateSet,
    check_n_states,
    choose,
    read_states,
    recorded_states,
    rows_as_bytes,
    save_state_set,
    split_states,
    states_sha256,
    synthetic_heldout,
    synthetic_states,
    training_states,
)
from populations.regular_files import read_regular

__all__ = [
    # to train on
    "StateSet",
    "synthetic_states",
    "synthetic_heldout",
    "training_states",
    "split_states",
    "save_state_set",
    # to be judged on
    "EvaluationStates",
    "evaluation_states",
    "check_rows_are_known",
]

SEEN_BY_PARENTS = "the parents may have seen some of these states while they learned to play"
SEARCHED = "run_config.json"
"""Beside a child of a search: what it was made of, and the hashes of its files."""


@dataclass(frozen=True, eq=False)
class EvaluationStates:
    """What networks are judged on.

    Attributes:
        states: The rows, ``(N, n_inputs)``.
        source: A file, ``synthetic``, or whose recorded rows they are.
        held_out: Whether nothing was trained on them; None where that cannot be known.
        n_left_out: Rows that were taken out because something was trained on them.
        note: What to know about ``held_out``; empty where there is nothing to say.
    """

    states: States
    source: str
    held_out: bool | None
    n_left_out: int = 0
    note: str = ""

    @property
    def sha256(self) -> str:
        """Hash of the rows."""
        return states_sha256(self.states)

    def record(self) -> dict[str, Any]:
        """Return what a report keeps."""
        return {
            "source": self.source,
            "n_states": len(self.states),
            "input_dim": self.states.shape[1],
            "sha256": self.sha256,
            "held_out": self.held_out,
            "n_left_out": self.n_left_out,
            "note": self.note,
        }


def evaluation_states(
    roles: Sequence[Role],
    n_states: int | None,
    n_inputs: int,
    seed: int | None,
    states_file: Path | None = None,
    use_training_states: bool = False,
) -> EvaluationStates:
    """Return the states to judge networks on.

    These are the rows of ``states_file``, or else those that the training of the first role that
    recorded any held out, without every row that a role or its sources were trained on; or else
    standard normal rows that nothing trains on, where no network is known to be for others.

    Args:
        roles: The networks.
        n_states: Most rows to take where no file is given; None for all that are recorded.
        n_inputs: Numbers in one flattened observation.
        seed: Draws synthetic rows, or chooses among more than ``n_states``.
        states_file: A ``.npy`` file of float states, used whole.
        use_training_states: Take what AgentFarm takes, without regard to training: the whole
            file, or the first ``n_states`` rows that a role was trained on, or the documented
            synthetic rows of the seed.

    Raises:
        StageError: A file is damaged or does not fit, fewer than two rows are asked for or left,
            or normally distributed rows would say nothing of the networks.
    """
    check_n_states(n_states)
    given = None if states_file is None else read_states(states_file, n_inputs)
    if use_training_states:
        return _training_rows(roles, n_states, n_inputs, seed, given, str(states_file))
    sets = _recorded_sets(roles, n_inputs)
    if given is not None:
        rows, source = given, str(states_file)
    else:
        kept = next((found for found in sets if found.heldout is not None), None)
        if kept is None or kept.heldout is None:
            check_rows_are_known(roles, n_inputs)
            rows = synthetic_heldout(_number(n_states), n_inputs, seed)
            return EvaluationStates(rows, SYNTHETIC, held_out=True)
        rows, source = kept.heldout, f"held out when {kept.name} was trained"
    left = _without(rows, [found.train for found in sets if found.train is not None])
    if len(left) < MIN_ROWS:
        names = ", ".join(dict.fromkeys(found.name for found in sets))
        raise StageError(
            f"{source}: of these {len(rows)} states, {len(left)} were not used in training "
            f"{names}, but at least {MIN_ROWS} are needed to judge them; give other states with "
            "--states-file, or pass --use-training-states"
        )
    unknown = _unknown(roles, sets)
    notes = [f"whether all rows are held out is not known: {'; '.join(unknown)}"] if unknown else []
    return EvaluationStates(
        left if given is not None else choose(left, n_states, seed),
        source,
        held_out=None if unknown else True,
        n_left_out=len(rows) - len(left),
        note="; ".join(notes + _looked_at(roles)),
    )


def check_rows_are_known(roles: Sequence[Role], n_inputs: int) -> None:
    """Refuse to take standard normal rows for networks that are known to be for others.

    Args:
        roles: The networks.
        n_inputs: Numbers in one flattened observation.

    Raises:
        StageError: The rows that a network was trained on are gone, or it plays an environment and
            none were recorded.
    """
    sets = _recorded_sets(roles, n_inputs)
    if any(found.heldout is not None for found in sets):
        return
    for found in sets:
        if found.source != SYNTHETIC:
            raise StageError(
                f"{found.directory / STATES_FILE}: expected the states that were put aside when "
                f"{found.name} was trained, but the file is gone or was replaced; put it back, or "
                "give states with --states-file, as normally distributed ones say nothing of it"
            )
    for role in roles:
        for _, sidecar in lineage(role)[0]:
            if sidecar.get("environment") is not None:
                raise StageError(
                    f"{role.path or role.name} plays {sidecar['environment']}, but no states were "
                    "put aside when it was made; give some with --states-file, as normally "
                    "distributed ones say nothing of it"
                )


@dataclass(frozen=True, eq=False)
class _Recorded:
    """A set of states that a role, or something it was made from, was trained on.

    Attributes:
        name: Of the role.
        directory: Where the set was saved.
        source: ``synthetic``, or the file it comes from.
        train: The rows trained on; None where they cannot be found any more.
        heldout: The rows held out; likewise.
    """

    name: str
    directory: Path
    source: str | None
    train: States | None
    heldout: States | None


def _recorded_sets(roles: Sequence[Role], n_inputs: int) -> list[_Recorded]:
    """Return all different sets, in the order of the roles."""
    sets: dict[tuple[object, object], _Recorded] = {}
    for role in roles:
        for directory, sidecar in lineage(role)[0]:
            record = sidecar.get("states")
            if record is None:
                continue
            if record.get("n_inputs") != n_inputs:
                raise StageError(
                    f"{role.name} was trained on states of {record.get('n_inputs')} numbers, but "
                    f"those to judge it on have {n_inputs}"
                )
            key = (record.get("train_sha256"), record.get("heldout_sha256"))
            if key not in sets:
                train, heldout = (
                    recorded_states(record, directory, part) for part in ("train", "heldout")
                )
                sets[key] = _Recorded(role.name, directory, record.get("source"), train, heldout)
    return list(sets.values())


def _unknown(roles: Sequence[Role], sets: Sequence[_Recorded]) -> list[str]:
    """Return in words why rows may be left that something was trained on."""
    reasons = [reason for role in roles for reason in lineage(role)[1]]
    reasons += [
        f"the states that {found.name} was trained on are not in {found.directory} any more"
        for found in sets
        if found.train is None
    ]
    return list(dict.fromkeys(reasons))


def _looked_at(roles: Sequence[Role]) -> list[str]:
    """Return in words how networks may depend on rows that none of them was trained on."""
    notes = []
    for role in roles:
        for directory, sidecar in lineage(role)[0]:
            if sidecar.get("replay_states"):
                notes.append(SEEN_BY_PARENTS)
            if sidecar.get("sha256") in _files_of_a_search(directory):
                notes.append(f"a search may have chosen {role.name} on some of these states")
    return list(dict.fromkeys(notes))


def _files_of_a_search(directory: Path) -> list[Any]:
    """Return the hashes of the files of a child of a search; empty for any other folder."""
    try:
        content = json.loads(read_regular(directory / SEARCHED, LARGEST_SIDECAR))
        return list(content["files"].values())
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return []


def _training_rows(
    roles: Sequence[Role],
    n_states: int | None,
    n_inputs: int,
    seed: int | None,
    given: States | None,
    file: str,
) -> EvaluationStates:
    """Return the rows of ``--use-training-states``."""
    note = "these rows were, or may have been, used in training (--use-training-states)"
    if given is not None:
        return EvaluationStates(given, file, held_out=False, note=note)
    for found in _recorded_sets(roles, n_inputs):
        if found.train is not None:
            source = f"training states of {found.name}"
            return EvaluationStates(found.train[:n_states], source, held_out=False, note=note)
    rows = synthetic_states(_number(n_states), n_inputs, seed)
    return EvaluationStates(rows, SYNTHETIC, held_out=False, note=note)


def _number(n_states: int | None) -> int:
    if n_states is None:
        raise StageError(f"--n-states: expected at least {MIN_ROWS} states, not None")
    return n_states


def _without(rows: States, others: Sequence[States]) -> States:
    """Return the rows that are in none of the others."""
    seen = {row for other in others for row in rows_as_bytes(other).tolist()}
    if not seen:
        return rows
    is_new = np.array([row not in seen for row in rows_as_bytes(rows).tolist()], dtype=bool)
    left: States = rows[is_new]
    return left
