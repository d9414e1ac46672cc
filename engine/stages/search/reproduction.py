"""A child of a search, made again from its run configuration alone."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import StageError
from engine.learning.checkpoints import save_int8, save_network
from engine.stages.reports.files import plain
from engine.stages.roles import Role, load_role
from engine.stages.search.child import ChildPlan, ChildResult, SearchContext, finetuning_config
from engine.stages.search.files import CHILD, INT8_CHILD, read_config
from engine.stages.search.space import Recipe, Regime, Trial
from engine.stages.state_sets import StateSet, recorded_states
from populations.regular_files import sha256_of


def reproduce(path: Path, allow_unsafe: bool = False) -> dict[str, bool]:
    """Make a child again, and tell whether it is the same, byte for byte.

    Args:
        path: Its ``run_config.json``.
        allow_unsafe: Let the parents' files run their code.

    Returns:
        Whether each file of the child has the recorded hash, by name.

    Raises:
        StageError: The configuration cannot be read, or what it names is gone or was replaced.
    """
    config = read_config(path)
    result = remade(config, path, allow_unsafe)
    assert result.network is not None, "work raises where there is no child"
    digests = config.get("files")
    if not isinstance(digests, dict):
        raise StageError(f"{path}: expected hashes of the files of a child under 'files'")
    with tempfile.TemporaryDirectory() as folder:
        files = {CHILD: Path(folder) / CHILD}
        save_network(files[CHILD], result.network.spec, result.network.weights)
        if result.genome is not None:
            files[INT8_CHILD] = Path(folder) / INT8_CHILD
            save_int8(files[INT8_CHILD], result.genome)
        return {name: sha256_of(file) == digests.get(name) for name, file in files.items()}


def remade(config: dict[str, Any], path: Path, allow_unsafe: bool = False) -> ChildResult:
    """Return the child of a run configuration; see :func:`reproduce`."""
    context, trial = _described(config, path, allow_unsafe)
    return context.work([ChildPlan(trial)], {})[0]


def described_child(path: Path, allow_unsafe: bool = False) -> tuple[SearchContext, Trial]:
    """Return what a child is made from and how; see :func:`reproduce`."""
    return _described(read_config(path), path, allow_unsafe)


def _described(
    config: dict[str, Any], path: Path, allow_unsafe: bool
) -> tuple[SearchContext, Trial]:
    try:
        return _understood(config, path, allow_unsafe)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise StageError(
            f"{path}: expected what a search writes of a child, but a field is missing or of "
            f"another type ({error!r:.200}); it was changed: make the search again"
        ) from error


def _understood(
    config: dict[str, Any], path: Path, allow_unsafe: bool
) -> tuple[SearchContext, Trial]:
    recipe, finetune = Recipe(**config["crossover"]), config["finetune"]
    regime = Regime.from_dict(finetune)
    expected = plain(asdict(finetuning_config(regime)))
    changed = [name for name, value in expected.items() if finetune.get(name) != value]
    if changed:
        raise StageError(
            f"{path}: finetune.{changed[0]} is {finetune.get(changed[0])!r}, but this version has "
            f"{expected[changed[0]]!r}; use the version that is recorded there"
        )
    a, b = (_parent(config, name, path, allow_unsafe) for name in ("parent_a", "parent_b"))
    record = config["states"]
    train, heldout = (recorded_states(record, path.parent, part) for part in ("train", "heldout"))
    if train is None or heldout is None:
        raise StageError(
            f"{path}: the states that the child was trained on are not in {path.parent} any more"
        )
    context = SearchContext(
        a.network,
        b.network,
        StateSet(train, heldout, record["source"], record["seed"]),
        heldout,
        finetune["reference"],
        finetune["dropout"],
    )
    trial = Trial(int(config["child_id"].partition("_")[0]), recipe, regime)
    return context, trial


def _parent(config: dict[str, Any], name: str, path: Path, allow_unsafe: bool) -> Role:
    source = config["parents"][name]
    role = load_role(name, path.parent / source["path"], allow_unsafe)
    if role.sha256 != source["sha256"]:
        raise StageError(
            f"{role.path}: expected {name} with SHA-256 {source['sha256']}, as {path} says, but "
            "the file was replaced; put it back"
        )
    return role
