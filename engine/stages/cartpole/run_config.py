"""What the reports of the CartPole pipelines say under ``config``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.stages.cartpole.asked_training import NAMES, SEEDS
from engine.stages.cartpole.parent_pair import PairChoice, Parent
from engine.stages.cartpole.parent_settings import LABELS
from engine.stages.roles import Role


def config_record(
    flags: Mapping[str, Any],
    choice: PairChoice,
    parents: Mapping[str, Parent],
    roles: Mapping[str, Role],
) -> dict[str, Any]:
    """Return the command line, with the training that the parents really had.

    A flag of the training has the value that both parents tell, None where they differ or do not
    tell; ``parents`` has the origin and the settings of each.

    Args:
        flags: Every option by the name of its flag, with its value.
        choice: Which parents were asked for.
        parents: Both parents by label.
        roles: All networks that have a file, by name.
    """
    told = {label: parent.record() for label, parent in parents.items()}
    known = {label: record["settings"] for label, record in told.items()}
    trained: dict[str, Any] = {}
    for name, flag in choice.asked.flags.items():
        if name not in NAMES:
            continue
        if name in SEEDS:
            values = [known[SEEDS[name]].get("seed")]
        else:
            values = [known[label].get(name) for label in LABELS]
        same = all(value == values[0] for value in values)
        trained[flag.lstrip("-").replace("-", "_")] = values[0] if same else None
    return {
        **flags,
        **trained,
        "parents": {
            label: {name: record[name] for name in ("origin", "path", "settings")}
            for label, record in told.items()
        },
        "allow_unsafe_unpickle": choice.allow_unsafe,
        "unsafe_unpickle_needed_by": [name for name, role in roles.items() if role.unsafe],
    }
