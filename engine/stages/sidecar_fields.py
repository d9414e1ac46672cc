"""What the fields of a sidecar must be that other stages follow, as anybody can edit the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.stages.state_sets import LARGEST_N_STATES, SYNTHETIC

TEXT, OBJECT = "a text", "an object"


def fault_in(sidecar: Mapping[str, Any]) -> str | None:
    """Return which field is not as cultivar writes it and what was expected; None where all are."""
    for field, value, expected, is_right in _fields(sidecar):
        if not is_right:
            return f"expected {field} to be {expected}, not {value!r:.60}"
    return None


Check = tuple[str, Any, str, bool]


def _fields(sidecar: Mapping[str, Any]) -> Iterator[Check]:
    """Yield fields with their values, what is expected of them, and whether they are so."""
    for name in ("sources", "architecture"):
        yield name, sidecar.get(name), OBJECT, isinstance(sidecar.get(name, {}), dict)
    for name in ("states", "replay_states", "config"):
        yield name, sidecar.get(name), OBJECT, isinstance(sidecar.get(name), dict | None)
    for name in ("kind", "environment", "pair"):
        yield _text(sidecar, name)
    yield _whole(sidecar, "seed")
    for name, source in _object(sidecar, "sources").items():
        yield f"sources.{name}", source, OBJECT, isinstance(source, dict)
        for part in ("path", "sha256"):
            yield _text(source, part, f"sources.{name}.")
    dropout = _object(sidecar, "architecture").get("dropout", 0.0)
    is_share = type(dropout) in (int, float) and 0 <= dropout < 1
    yield "architecture.dropout", dropout, "a number from 0 to less than 1", is_share
    yield from _states(_object(sidecar, "states"))
    for part in ("path", "file", "sha256"):
        yield _text(_object(sidecar, "replay_states"), part, "replay_states.")
    file = _object(sidecar, "replay_states").get("file")
    is_beside = file is None or (file not in ("", "..") and Path(str(file)).name == file)
    yield "replay_states.file", file, "the name of a file beside it", is_beside


def _states(states: Mapping[str, Any]) -> Iterator[Check]:
    for name in ("source", "file", "train_sha256", "heldout_sha256"):
        yield _text(states, name, "states.")
    # synthetic rows are drawn again from what is recorded, before their hash can tell that it lies
    most = LARGEST_N_STATES if states.get("source") == SYNTHETIC else None
    yield _whole(states, "seed", "states.")
    for name in ("n_inputs", "n_train", "n_heldout"):
        yield _whole(states, name, "states.", most)


def _object(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return owner.get(name) or {}


def _text(owner: Mapping[str, Any], name: str, prefix: str = "") -> Check:
    value = owner.get(name)
    return f"{prefix}{name}", value, TEXT, isinstance(value, str | None)


def _whole(owner: Mapping[str, Any], name: str, prefix: str = "", most: int | None = None) -> Check:
    value = owner.get(name)
    is_whole = type(value) is int and value >= 0 and (most is None or value <= most)
    expected = "a whole number from 0" + ("" if most is None else f" to {most}")
    return f"{prefix}{name}", value, expected, value is None or is_whole
