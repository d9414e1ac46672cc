"""Files that the stages of the pipeline leave and read back: a small search, and its readers."""

from __future__ import annotations

import functools
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.dispatch.serial import SerialExecutor
from engine.errors import StageError
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.replay import replay_states
from engine.stages.roles import Role, lineage, load_role, load_source, save_role, sidecar
from engine.stages.search.output import Search
from engine.stages.search.reproduction import described_child
from engine.stages.search.run import crossover_search
from engine.stages.search.setup import Workers
from engine.stages.search.space import Recipe, Regime, SearchSpace
from engine.stages.state_sets import recorded_states, save_state_set, states_sha256, training_states
from fuzzing import samples
from populations.regular_files import is_regular, sha256_of

SEARCH = "search"
SETTINGS = f"{SEARCH}/search_config.json"
PARENT = "parent_A.pt"
REPLAY = "seen.npy"
SPACE = SearchSpace("custom", (Recipe("weighted"),), (Regime("quick", epochs=1, lr=1e-3),))


@functools.cache
def files() -> dict[str, bytes]:
    """Return a folder with two parents, their states, and a finished search of one child."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        crossover_search(_search(folder), folder / SEARCH, SerialExecutor(Workers(attempts=1)))
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def child_file(name: str) -> str:
    """Return where a file of the one child lies."""
    return next(file for file in files() if file.endswith(f"/{name}"))


def sample(name: str) -> list[bytes]:
    """Return one of the files."""
    return [files()[name]]


def read_parent(path: Path) -> object:
    """Read a parent with its damaged sidecar, and all that the sidecar speaks of."""
    role = load_role("parent", path.with_name(PARENT))
    record = role.sidecar.get("states") or {}
    states = [recorded_states(record, path.parent, part) for part in ("train", "heldout")]
    sources = [load_source(role, name, name) for name in role.sidecar.get("sources") or {}]
    return lineage(role), replay_states(role), states, sources


def go_on(path: Path) -> object:
    """Start a search again where it was left; no child is made."""
    folder = next(parent for parent in path.parents if parent.name == SEARCH)
    return crossover_search(_loaded(folder.parent), folder, _MakesNothing())


def go_on_with_report(path: Path) -> object:
    """Start a search again with a report that somebody has changed together with its hash."""
    config = path.with_name("run_config.json")
    content = json.loads(config.read_bytes())
    content["files"][path.name] = sha256_of(path) if is_regular(path) else ""
    config.write_text(json.dumps(content))
    return go_on(path)


def describe_child(path: Path) -> object:
    """Read what a child is made again from."""
    return described_child(path)


class _MakesNothing:
    n_workers = 1

    def run(
        self, context: Any, batches: Sequence[Any], stop: threading.Event
    ) -> Iterator[list[Any]]:
        if list(batches):
            raise StageError("a child is to be made again")
        return iter(())


def _search(folder: Path) -> Search:
    """Write two parents and their states, and return a search of theirs."""
    states = training_states(96, 4, 42)
    save_state_set(folder, states)
    (folder / REPLAY).write_bytes(samples.states()[0])
    seen = samples.read_array(samples.states()[0])
    for seed, name in enumerate((PARENT, "parent_B.pt")):
        spec = teacher_spec(4, 2, 16)
        about = {
            "states": states.record(),
            "environment": None,
            "seed": seed,
            "replay_states": {"file": REPLAY, "sha256": states_sha256(seen)},
        }
        network = Network(spec, initial_weights(spec, seed))
        save_role(folder / name, network, sidecar("teacher", spec, 0.1, **about))
    return _loaded(folder)


def _loaded(folder: Path) -> Search:
    parents: list[Role] = [load_role(n, folder / f"{n}.pt") for n in ("parent_A", "parent_B")]
    return Search(*parents, states=training_states(96, 4, 42), space=SPACE)
