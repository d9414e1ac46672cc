"""What a network saw while it learned to play, where it has kept that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engine.errors import StageError
from engine.stages.roles import Role, lineage
from engine.stages.state_sets import States, read_states, states_sha256
from populations.regular_files import is_regular

REPLAY = "replay_states"
"""In a sidecar: ``file``, the ``.npy`` file beside it, and ``sha256``, that of its rows."""
PARENT_FILE = re.compile(r"parent_(?P<label>[AB]).*")


def replay_states(role: Role) -> tuple[States, str] | None:
    """Return what a network, or one that it was made from, saw while it learned, and its file.

    It is what a sidecar names under ``replay_states``, or ``replay_states_A.npy`` beside a file
    ``parent_A.pt``, as AgentFarm leaves it; None where there is none.

    Raises:
        StageError: The file cannot be read, or is not the one that the sidecar speaks of.
    """
    n_inputs = role.network.spec.n_inputs
    for directory, sidecar in lineage(role)[0]:
        recorded: dict[str, Any] = sidecar.get(REPLAY) or {}
        path = directory / str(recorded.get("file"))
        if recorded and is_regular(path):
            rows = read_states(path, n_inputs)
            if states_sha256(rows) != recorded.get("sha256"):
                raise StageError(
                    f"{path}: expected what {role.name} ({role.path}) saw while it learned, but "
                    "the file was replaced; train it again, or choose states with --states-file"
                )
            return rows, path.name
    beside = _beside(role.path)
    return None if beside is None else (read_states(beside, n_inputs), beside.name)


def _beside(path: Path | None) -> Path | None:
    """Return the file that AgentFarm leaves beside a parent, if it is there."""
    match = None if path is None else PARENT_FILE.fullmatch(path.name)
    if path is None or match is None:
        return None
    replay = path.with_name(f"replay_states_{match['label']}.npy")
    return replay if replay.is_file() else None
