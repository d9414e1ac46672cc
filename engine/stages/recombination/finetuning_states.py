"""The states that a child is fine-tuned on: by default those that its parents were trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from engine.errors import StageError
from engine.stages.distillation.teacher_states import states_for_students
from engine.stages.roles import Role
from engine.stages.state_sets import (
    MIN_ROWS,
    SYNTHETIC,
    StateSet,
    choose,
    recorded_states,
    rows_as_bytes,
    training_states,
)


def states_for_child(
    parents: Sequence[Role],
    environment: str | None,
    n_states: int | None,
    seed: int,
    states_file: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> StateSet:
    """Return the states that a child trains on, and those put aside.

    They come from ``states_file``; else they are what the sidecars of the parents say that these
    were trained on, unless that is synthetic; else as for a student of the parents, which is
    what teachers saw in their environment, or synthetic rows of ``seed``. What any parent held
    out stays held out.

    Args:
        parents: Networks of the same inputs and actions.
        environment: What they play, None where that is not known.
        n_states: Rows to train on; None for all of a file or of recorded ones, or 1,000 synthetic
            ones.
        seed: Of drawing, splitting and choosing.
        states_file: A ``.npy`` file of states.
        tell: Is told where the states come from.

    Raises:
        StageError: The states cannot be used, are gone, or there are too few.
        TaskError: The environment is unknown or cannot be played.
    """
    n_inputs = parents[0].network.spec.n_inputs
    if states_file is not None:
        chosen = training_states(n_states, n_inputs, seed, states_file)
    else:
        recorded = _recorded_sets(parents)
        if not recorded:
            return states_for_students(parents, environment, n_states, seed, tell=tell)
        chosen = _joined(recorded, n_states, seed)
    tell(chosen.describe(n_states))
    return chosen


def _recorded_sets(parents: Sequence[Role]) -> list[StateSet]:
    """Return the different sets, other than synthetic ones, that parents were trained on.

    Raises:
        StageError: A set is gone.
    """
    sets: dict[str, StateSet] = {}
    for parent in parents:
        record = parent.sidecar.get("states")
        if parent.path is None or not record or record.get("source") == SYNTHETIC:
            continue
        directory = parent.path.parent
        train, heldout = (recorded_states(record, directory, part) for part in ("train", "heldout"))
        if train is None or heldout is None:
            raise StageError(
                f"{directory}: expected states.npz with the states that {parent.path.name} was "
                "trained on, but it is gone or was replaced; give states with --states-file"
            )
        found = StateSet(train, heldout, str(record.get("source")), record.get("seed"))
        sets.setdefault(str(record.get("train_sha256")), found)
    return list(sets.values())


def _joined(sets: Sequence[StateSet], n_states: int | None, seed: int) -> StateSet:
    """Return one set of all: what was held out anywhere is held out, and none of the others."""
    if len(sets) == 1:
        [only] = sets
        return StateSet(choose(only.train, n_states, seed), only.heldout, only.source, only.seed)
    trained = np.concatenate([found.train for found in sets])
    heldout = np.concatenate([found.heldout for found in sets])
    heldout = heldout[~np.isin(rows_as_bytes(heldout), rows_as_bytes(trained))]
    source = ", ".join(dict.fromkeys(found.source for found in sets))
    if len(heldout) < MIN_ROWS:
        raise StageError(
            f"{source}: what one parent held out, the other was trained on, so that no states are "
            "left to judge the child on; give states with --states-file"
        )
    return StateSet(choose(trained, n_states, seed), heldout, source, seed)
