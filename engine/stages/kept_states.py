"""The ``states.npz`` of a folder is that of its networks: none of them loses the rows it saw."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.errors import StageError
from engine.stages.roles import Role, load_role
from engine.stages.state_sets import STATES_FILE, SYNTHETIC, StateSet, states_sha256

STUDENTS = ("student_A.pt", "student_B.pt")


def check_no_rows_are_lost(
    directory: Path, states: StateSet, roles: Iterable[Role], written: Iterable[Path] = ()
) -> None:
    """Refuse to replace the ``states.npz`` that a network of the folder was trained on.

    Synthetic rows are never lost, as they are drawn again from their seed.

    Args:
        directory: Where the states are to be written.
        states: What is to be written.
        roles: Networks that the stage works with.
        written: Files that the stage replaces; their states may go with them.

    Raises:
        StageError: One of ``roles``, or a student in the folder, was trained on other rows.
    """
    students = [directory / name for name in STUDENTS]
    kept = [path for path in students if path not in set(written) and path.is_file()]
    for role in [*roles, *(load_role(path.stem, path) for path in kept)]:
        record = role.sidecar.get("states") or {}
        if role.path is None or role.path.resolve().parent != directory.resolve():
            continue
        is_other = record.get("train_sha256") != states_sha256(states.train)
        if is_other and record.get("source", SYNTHETIC) != SYNTHETIC:
            raise StageError(
                f"{directory / STATES_FILE} holds the states that {role.name} ({role.path}) was "
                "trained on, and would be overwritten with others; choose another --output-dir"
            )
