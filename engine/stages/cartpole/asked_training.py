"""What a command line asks of the training of parents, against what parents that exist tell of it.

A flag that a parent contradicts is refused: it would be ignored, and a report that repeats the
command line would be wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import StageError
from engine.stages.cartpole.parent_settings import LABELS, ParentSettings
from engine.stages.roles import Role

HIDDEN = "hidden"
SEEDS = {f"seed_{label.lower()}": label for label in LABELS}
WITHOUT_TRACE = frozenset(("labels", "log_every", "device", "eval_episodes"))
"""Settings that change nothing about a parent."""
NAMES = tuple(
    setting.name
    for setting in dataclasses.fields(ParentSettings)
    if setting.name not in WITHOUT_TRACE
)


@dataclass(frozen=True)
class AskedTraining:
    """The flags of the training.

    Attributes:
        flags: By name of a setting of ``ParentSettings``, such as ``{"hidden": "--hidden-size"}``.
        given: Names of those that the user gave; the others have their defaults.
    """

    flags: Mapping[str, str] = field(default_factory=dict)
    given: Collection[str] = ()


def settings_of(role: Role) -> dict[str, Any]:
    """Return how a parent was trained as far as it is known, by name of the setting.

    The seed is called ``seed``. The width is that of the network itself; of all else, only the
    sidecar of a parent tells.
    """
    about: dict[str, Any] = {}
    if role.sidecar.get("kind") == "parent":
        recorded = role.sidecar.get("config")
        config = recorded if isinstance(recorded, dict) else {}
        about = {name: config[name] for name in NAMES if name in config}
        if "seed" in role.sidecar:
            about["seed"] = role.sidecar["seed"]
    hidden = role.network.spec.hidden
    return {**about, HIDDEN: hidden[0] if len(set(hidden)) == 1 else list(hidden)}


def check_asked(
    role: Role,
    label: str,
    is_given: bool,
    trains_other: bool,
    training: ParentSettings,
    asked: AskedTraining,
) -> list[str]:
    """Refuse flags that contradict a parent that is not trained now.

    Args:
        role: The parent.
        label: ``A`` or ``B``.
        is_given: Whether its file was given; else it was found in the folder of the run.
        trains_other: Whether the other parent is trained now.
        training: What the flags say.
        asked: Which of them the user gave.

    Returns:
        The flags of which it is not known whether they contradict it.

    Raises:
        StageError: A flag contradicts it.
    """
    known, unknown, own, wanted = settings_of(role), [], [], []
    for name in NAMES:
        if name not in asked.given or SEEDS.get(name, label) != label:
            continue
        if is_given and trains_other and name != HIDDEN and name not in SEEDS:
            continue  # it is for the parent that is trained
        recorded = "seed" if name in SEEDS else name
        value = getattr(training, name)
        if recorded not in known:
            unknown.append(asked.flags[name])
        elif known[recorded] != value:
            own.append(f"{asked.flags[name]} {known[recorded]}")
            wanted.append(str(value))
    if not own:
        return unknown
    instead = (
        "give another parent"
        if is_given
        else "train anew with --force-train, or choose another --output-dir"
    )
    raise StageError(
        f"{role.path}: parent {label} was trained with {' and '.join(own)}, not "
        f"{' and '.join(wanted)}; leave out what differs, or {instead}"
    )
