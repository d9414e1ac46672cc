"""The states of the CartPole pipelines: what both parents saw while they learned to play.

A parent that is given keeps its own states: those in the folder of the run belong to others.
Normally distributed rows are never used, as no pole ever stands like that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from engine.stages.cartpole.parent_pair import Parent
from engine.stages.cartpole.parent_settings import ENVIRONMENT, N_INPUTS
from engine.stages.distillation.teacher_states import played_states
from engine.stages.replay import replay_states
from engine.stages.state_sets import (
    MIN_HELDOUT,
    States,
    StateSet,
    read_states,
    rows_as_bytes,
    split_states,
    training_states,
)

HELDOUT_FRACTION = 0.1


def check_states_file(states_file: Path | None) -> None:
    """Refuse a file of states that cannot be used, before time is spent on parents.

    Raises:
        StageError: As in :func:`state_sets.read_states`.
    """
    if states_file is not None:
        read_states(states_file, N_INPUTS)


def states_of_parents(
    parents: Mapping[str, Parent],
    n_states: int,
    seed: int,
    states_file: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> StateSet:
    """Return the states to train on, and those to judge on, which no later stage trains on.

    Without a file, what both parents saw while they learned is merged and put into a random order,
    ``default_rng(seed).permutation``. The first ``n_states`` rows are trained on, as documented; as
    many that follow, or as there are, are held out. Where these are less than a tenth, a tenth of
    all rows is held out. A parent whose states are not known plays for some.

    Args:
        parents: By label.
        n_states: Rows to train on.
        seed: Of the order, and of the episodes of a parent that plays.
        states_file: A ``.npy`` file to take instead, used whole but for a tenth that is held out.
        tell: Is told where the states come from.

    Raises:
        StageError: States cannot be read, or there are too few.
    """
    if states_file is not None:
        chosen = training_states(None, N_INPUTS, seed, states_file, HELDOUT_FRACTION)
    else:
        parts = [_states_of(parent, n_states, seed, tell) for parent in parents.values()]
        rows = np.concatenate([part for part, _ in parts])
        source = f"{ENVIRONMENT}: {', '.join(name for _, name in parts)}"
        chosen = _in_documented_order(rows, n_states, seed, source)
        if len(chosen.train) < n_states:
            tell(
                f"note: --n-states asks for {n_states:,} states, but the parents saw only "
                f"{len(rows):,}"
            )
    tell(f"states: {len(chosen.train):,} to train on, {len(chosen.heldout):,} held out")
    return chosen


def _states_of(
    parent: Parent, n_states: int, seed: int, tell: Callable[[str], None]
) -> tuple[States, str]:
    """Return what a parent has seen, and what to call it."""
    found = replay_states(parent.role)
    if found is not None:
        return found
    tell(f"{parent.role.path}: no replay states are known, so it plays for some")
    rows = played_states([parent.role], ENVIRONMENT, n_states, seed)
    return rows, f"played by {parent.role.name}"


def _in_documented_order(rows: States, n_states: int, seed: int, source: str) -> StateSet:
    order = np.random.default_rng(seed).permutation(len(rows))
    train, rest = rows[order[:n_states]], rows[order[n_states : 2 * n_states]]
    heldout = rest[~np.isin(rows_as_bytes(rest), rows_as_bytes(train))]
    if len(heldout) < max(MIN_HELDOUT, HELDOUT_FRACTION * n_states):
        return split_states(rows, n_states, seed, source, HELDOUT_FRACTION)
    return StateSet(train, heldout, source, seed)
