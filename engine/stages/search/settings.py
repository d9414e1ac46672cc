"""What a folder of a search holds, written before anything else: one folder, one search.

Started again with the same settings, a search goes on; with others it is refused, so that nothing
that was found before is replaced, and no child lies beside a manifest that does not list it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import StageError
from engine.stages.networks import TEACHER_DROPOUT
from engine.stages.reports.files import plain, write_json
from engine.stages.roles import DISTRIBUTIONS, Role
from engine.stages.search.child import K_VALUES, Judging, Reference, finetuning_config
from engine.stages.search.space import Trial
from engine.versions import versions
from populations.regular_files import read_regular

FORMAT = "cultivar-crossover-search"
SCHEMA_VERSION = 1
LARGEST_FILE = 2**28
"""Bytes of a JSON file of a search, however many children it has."""
MOST_NAMED = 4
"""Differences that a refusal names; the others it counts."""
LONGEST_VALUE = 100
"""Characters of a value, or of its name, that a refusal shows."""


def dropout_of(parent_a: Role) -> float:
    """Return the share of hidden units dropped while a child trains: that of parent A."""
    return float(parent_a.sidecar.get("architecture", {}).get("dropout", TEACHER_DROPOUT))


def trial_settings(trial: Trial, reference: Reference, dropout: float) -> dict[str, Any]:
    """Return what makes a child this one."""
    return {
        "child_id": trial.child_id,
        "crossover": asdict(trial.recipe),
        "finetune": {
            **asdict(finetuning_config(trial.regime)),
            **trial.regime.to_dict(),
            "reference": reference,
            "dropout": dropout,
        },
    }


def judging_settings(judging: Judging) -> dict[str, Any]:
    """Return how children are judged, without the states."""
    return {
        "thresholds": judging.thresholds.to_dict(),
        "k_values": K_VALUES,
        "include_parent_baseline": judging.include_parent_baseline,
        "environment": judging.environment,
        "episodes": judging.episodes,
        "seed": judging.seed,
    }


def versions_for(judging: Judging) -> dict[str, str]:
    """Return the versions of what a child depends on."""
    packages = DISTRIBUTIONS if judging.environment is None else (*DISTRIBUTIONS, "gymnasium")
    return versions(*packages)


def claim(path: Path, settings: Mapping[str, Any], grows: str, results: Sequence[str] = ()) -> None:
    """Write the settings of a search into its folder, or refuse where it holds something else.

    Args:
        path: The file of settings.
        settings: All that what is found depends on.
        grows: Name of a list in them that may become longer: then what is there stays, and more
            comes to it.
        results: Files that the search will write; without settings beside them they are of
            something else.

    Raises:
        StageError: The folder holds a search of other settings, or something else.
    """
    folder = path.parent
    advice = "give another folder with --run-dir, or remove this one to start anew"
    if not path.exists():
        other = next((name for name in results if (folder / name).exists()), None)
        if other is not None:
            raise StageError(f"{folder} holds a {other} that is not of a search; {advice}")
    asked, there = plain(settings), read_json(path)
    known = there.get(grows, [])
    is_longer = isinstance(known, list) and asked[grows][: len(known)] == known
    same = {**asked, grows: known} if is_longer else asked
    if path.exists() and same != there:
        found = list(_differences(there, same))
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise StageError(
            f"{folder} holds a search with other settings: {'; '.join(found[:MOST_NAMED])}{more}; "
            f"{advice}"
        )
    if asked != there:
        write_json(path, asked)


def read_json(path: Path) -> dict[str, Any]:
    """Return an object from a JSON file; empty where there is none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(read_regular(path, LARGEST_FILE))
        if isinstance(content, Mapping):
            return dict(content)
    return {}


def _differences(there: Any, asked: Any, name: str = "") -> Iterator[str]:
    """Yield in words where two JSON values differ, by dotted names."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in dict.fromkeys([*there, *asked]):
            yield from _differences(there.get(key), asked.get(key), _named(name, key))
    elif isinstance(there, list) and isinstance(asked, list):
        for number, (before, now) in enumerate(zip(there, asked, strict=False)):
            yield from _differences(before, now, _brief(f"{name}[{number}]"))
        if len(there) != len(asked):
            yield f"{len(there)} {name} there, {len(asked)} now"
    elif there != asked:
        yield f"{name} is {_brief(there)} there, {_brief(asked)} now"


def _brief(value: Any) -> str:
    text = str(value)
    kept = 12 if len(text) == 64 and text.isalnum() else LONGEST_VALUE  # of a hash
    return text if len(text) <= kept else f"{text[:kept]}..."


def _named(outer: str, key: str) -> str:
    return _brief(f"{outer}.{key}" if outer else key)
