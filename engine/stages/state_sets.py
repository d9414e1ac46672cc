"""The states that a stage trains on, and those that it puts aside before, to be judged on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StageError, StatesError
from engine.learning.npy_files import NPY_DAMAGE, read_npz
from populations.storage import write_atomically

SYNTHETIC = "synthetic"
STATES_FILE = "states.npz"
MIN_HELDOUT = 32
MIN_ROWS = 2
LARGEST_N_STATES = 10_000_000
"""Most rows that are drawn: far more than a small network can learn from."""
# Streams of one seed that share no number with ``default_rng(seed)`` or with each other.
HELDOUT_STREAM, SPLIT_STREAM, CHOICE_STREAM = 1, 2, 3

States = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StateSet:
    """What a stage trains on, and what it puts aside before.

    Attributes:
        train: States to train and validate on, ``(N, n_inputs)``.
        heldout: States that nothing trains on, ``(M, n_inputs)``; no row of ``train`` is among
            them.
        source: ``synthetic``, or the file they come from.
        seed: What they were drawn or split with; None for a fresh one.
    """

    train: States
    heldout: States
    source: str
    seed: int | None

    def describe(self, n_states: int | None = None) -> str:
        """Return in words what there is, and how many were asked for if these are fewer."""
        asked = ""
        if n_states is not None and len(self.train) < n_states:
            asked = f" of {n_states} asked for"
        n_train, n_heldout = len(self.train), len(self.heldout)
        return f"states: {self.source}, {n_train} to train{asked}, {n_heldout} held out"

    def record(self) -> dict[str, Any]:
        """Return what a sidecar keeps: sizes, hashes, and the file of :func:`save_state_set`."""
        return {
            "source": self.source,
            "seed": self.seed,
            "n_inputs": self.train.shape[1],
            "n_train": len(self.train),
            "n_heldout": len(self.heldout),
            "train_sha256": states_sha256(self.train),
            "heldout_sha256": states_sha256(self.heldout),
            "file": STATES_FILE,
        }


def synthetic_states(n: int, n_inputs: int, seed: int | None) -> States:
    """Return standard normal rows ``(n, n_inputs)``: the documented ones of a seed."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n_inputs)).astype(np.float32)


def synthetic_heldout(n: int, n_inputs: int, seed: int | None) -> States:
    """Return standard normal rows ``(n, n_inputs)`` of another stream of the same seed.

    However many rows are drawn from either, none is a row of :func:`synthetic_states`.
    """
    rng = child_stream(seed, HELDOUT_STREAM)
    return rng.standard_normal((n, n_inputs)).astype(np.float32)


def child_stream(seed: int | None, number: int) -> np.random.Generator:
    """Return one of the independent random streams of a seed; fresh numbers for None."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))


def training_states(
    n_states: int | None,
    n_inputs: int,
    seed: int | None,
    states_file: Path | None = None,
    heldout_fraction: float = 0.1,
) -> StateSet:
    """Return the states of a training stage.

    Args:
        n_states: Rows to train on; None for all of a file.
        n_inputs: Numbers in one flattened observation.
        seed: Draws synthetic states, or splits those of a file.
        states_file: A ``.npy`` file of float states ``(N, n_inputs)`` with at least 64 rows.
            Without it the states are synthetic, with as many held-out rows as others.
        heldout_fraction: Share of a file's different rows that is put aside.

    Raises:
        StageError: The file cannot be used, or there are too few states.
    """
    check_n_states(n_states)
    if states_file is not None:
        states = read_states(states_file, n_inputs)
        return split_states(states, n_states, seed, str(states_file), heldout_fraction)
    if n_states is None:
        raise StageError("--n-states: expected the number of synthetic states, as no file is given")
    heldout = synthetic_heldout(max(n_states, MIN_HELDOUT), n_inputs, seed)
    return StateSet(synthetic_states(n_states, n_inputs, seed), heldout, SYNTHETIC, seed)


def check_n_states(n_states: int | None) -> None:
    """Refuse a number of states that nothing can be learned from or judged on.

    Raises:
        StageError: It is less than 2; None, for all there are, is none.
    """
    if n_states is not None and n_states < MIN_ROWS:
        raise StageError(f"--n-states: expected at least {MIN_ROWS} states, not {n_states}")


def split_states(
    states: States,
    n_states: int | None,
    seed: int | None,
    source: str,
    heldout_fraction: float = 0.1,
) -> StateSet:
    """Put states aside at random, and choose those to train on at random from the rest.

    Copies of a row stay together, so that no held-out row is trained on. At least 32 different
    rows are held out, or half of them where there are fewer than 64.

    Args:
        states: States ``(N, n_inputs)``.
        n_states: Rows to train on, where more are left; None for all.
        seed: Of the split and of the choice.
        source: Where the states come from.
        heldout_fraction: Share of the different rows that is put aside, in ``(0, 1)``.

    Raises:
        StageError: There are not two different rows, or fewer are asked for.
    """
    check_n_states(n_states)
    _, kinds = np.unique(rows_as_bytes(states), return_inverse=True)
    n_kinds = int(kinds.max(initial=-1)) + 1
    if n_kinds < MIN_ROWS:
        raise StageError(
            f"{source}: expected at least {MIN_ROWS} different states, so that some can be held "
            f"out, not {n_kinds}"
        )
    n_heldout = min(max(round(n_kinds * heldout_fraction), MIN_HELDOUT), n_kinds // 2)
    is_heldout = np.zeros(n_kinds, dtype=bool)
    is_heldout[child_stream(seed, SPLIT_STREAM).permutation(n_kinds)[:n_heldout]] = True
    mask = is_heldout[kinds]
    return StateSet(choose(states[~mask], n_states, seed), states[mask], source, seed)


def choose(states: States, n_states: int | None, seed: int | None) -> States:
    """Return ``n_states`` rows at random, in their order; all where there are not more."""
    if n_states is None or len(states) <= n_states:
        return states
    chosen = child_stream(seed, CHOICE_STREAM).permutation(len(states))[:n_states]
    return states[np.sort(chosen)]


def read_states(path: Path, n_inputs: int) -> States:
    """Read a ``.npy`` file of float states ``(N, n_inputs)``.

    Raises:
        StageError: The file is missing or damaged, has another shape, fewer than 64 rows, or rows
            with NaN or infinity.
    """
    from engine.learning.states import load_states  # brings gymnasium with it

    try:
        return load_states(path, n_inputs)
    except StatesError as error:
        raise StageError(str(error)) from error


def save_state_set(directory: Path, states: StateSet) -> None:
    """Write ``states.npz`` with the arrays ``train`` and ``heldout``; equal sets, equal bytes.

    Raises:
        StageError: The file cannot be written.
    """
    content = io.BytesIO()
    np.savez(content, train=states.train, heldout=states.heldout)
    try:
        write_atomically(directory / STATES_FILE, content.getvalue())
    except OSError as error:
        message = f"{directory / STATES_FILE}: cannot be written: {error.strerror}"
        raise StageError(message) from error


def recorded_states(record: Mapping[str, Any], directory: Path, part: str) -> States | None:
    """Return the states that a sidecar speaks of.

    Args:
        record: What :meth:`StateSet.record` returned.
        directory: Folder of the sidecar.
        part: ``train`` or ``heldout``.

    Returns:
        The states, read from the file beside the sidecar or else drawn again from their seed;
        None where neither gives rows with the recorded hash.

    Raises:
        StageError: The file is there but damaged.
    """
    digest = record.get(f"{part}_sha256")
    file = directory / STATES_FILE
    states = _read_archive(file)[part] if file.is_file() else None
    if states is None or states_sha256(states) != digest:
        states = _drawn_again(record, part)
    return states if states is not None and states_sha256(states) == digest else None


def _drawn_again(record: Mapping[str, Any], part: str) -> States | None:
    n, n_inputs, seed = (record.get(name) for name in (f"n_{part}", "n_inputs", "seed"))
    numbers = [number for number in (n, n_inputs, seed) if type(number) is int and number >= 0]
    if record.get("source") != SYNTHETIC or len(numbers) < 3 or numbers[0] > LARGEST_N_STATES:
        return None
    return (synthetic_states if part == "train" else synthetic_heldout)(*numbers)


def _read_archive(path: Path) -> dict[str, States]:
    try:
        arrays = read_npz(path, ("train", "heldout"))
        if any(a.dtype != np.float32 or a.ndim != 2 for a in arrays.values()):
            raise ValueError("not two arrays of float32 rows")
    except NPY_DAMAGE as error:
        raise StageError(
            f"{path}: expected the states that a stage was trained on, but the file is damaged "
            f"({error}); remove it, or train again"
        ) from error
    return arrays


def states_sha256(states: States) -> str:
    """Return the SHA-256 over shape and numbers of float32 states."""
    digest = hashlib.sha256(str(states.shape).encode())
    digest.update(np.ascontiguousarray(states, dtype="<f4").tobytes())
    return digest.hexdigest()


def rows_as_bytes(states: States) -> NDArray[np.void]:
    """Return each row as one item of bytes ``(N,)``, to compare rows whole; -0 becomes 0."""
    rows = np.ascontiguousarray(states + np.float32(0))
    return rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
