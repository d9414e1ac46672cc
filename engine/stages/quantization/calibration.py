"""The states from which a quantization stage learns, and what is kept of them beside its output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.stages.kept_states import check_no_rows_are_lost
from engine.stages.roles import Role
from engine.stages.state_sets import (
    STATES_FILE,
    SYNTHETIC,
    States,
    StateSet,
    choose,
    recorded_states,
    save_state_set,
    training_states,
)
from engine.stages.states import check_rows_are_known


@dataclass(frozen=True, eq=False)
class Lesson:
    """States to calibrate or train on.

    Attributes:
        states: The rows, ``(N, n_inputs)``.
        source: Where they come from.
        own: The set that was made for this stage; None for rows that the network was trained on
            before, which its own sidecar tells of.
    """

    states: States
    source: str
    own: StateSet | None = None


def lesson_for(
    network: Role,
    n_states: int | None,
    seed: int,
    states_file: Path | None = None,
    n_synthetic: int | None = None,
) -> Lesson | None:
    """Return states like those that a network is for.

    These are rows of ``states_file``, of which a tenth is put aside; or else rows that the network
    was trained on, so that what was held out then stays held out; or else standard normal ones.

    Args:
        network: The network.
        n_states: Most rows, chosen at random; None for all.
        seed: Chooses, splits and draws.
        states_file: A ``.npy`` file of float states.
        n_synthetic: Rows to draw where nothing else is known; None to draw none.

    Returns:
        The states; None where there are none.

    Raises:
        StageError: The file cannot be used, or the rows that the network is for are gone.
    """
    n_inputs = network.network.spec.n_inputs
    if states_file is not None:
        own = training_states(n_states, n_inputs, seed, states_file)
        return Lesson(own.train, str(states_file), own)
    recorded = _recorded(network)
    if recorded is not None:
        rows = choose(recorded.train, n_states, seed)
        return Lesson(rows, f"training states of {network.name}")
    check_rows_are_known([network], n_inputs)
    if n_synthetic is None:
        return None
    own = training_states(n_synthetic, n_inputs, seed)
    return Lesson(own.train, own.source, own)


def keep_states(network: Role, lesson: Lesson | None, directory: Path) -> dict[str, Any] | None:
    """Keep the states that a network made from another one was trained on in its own folder too.

    So a later stage finds them when it is given that folder alone. Synthetic ones need no file.

    Args:
        network: The network that it was made from.
        lesson: What it was calibrated or trained on.
        directory: Where it is written.

    Returns:
        What its sidecar says of them; None where nothing is known, or where the file of another
        network is in the way: then what is known is in the sidecar of its source.

    Raises:
        StageError: A set of its own would replace that of the network, or cannot be written.
    """
    is_same = network.path is not None and network.path.parent.resolve() == directory.resolve()
    if lesson is not None and lesson.own is not None:
        check_no_rows_are_lost(directory, lesson.own, [network])
        save_state_set(directory, lesson.own)
        return lesson.own.record()
    states = _recorded(network)
    if states is None:
        return None
    record: dict[str, Any] = network.sidecar["states"]
    if is_same:
        return record
    if states.source == SYNTHETIC:
        return {**record, "file": None}  # drawn again from the seed
    if not (directory / STATES_FILE).exists():
        save_state_set(directory, states)
    found = recorded_states(record, directory, "train")
    return record if found is not None else None


def _recorded(network: Role) -> StateSet | None:
    """Return the set that a network was trained on; None where it is not known any more."""
    record = network.sidecar.get("states")
    if record is None or network.path is None:
        return None
    folder = network.path.parent
    train, heldout = (recorded_states(record, folder, part) for part in ("train", "heldout"))
    if train is None or heldout is None:
        return None
    return StateSet(train, heldout, str(record.get("source")), record.get("seed"))
