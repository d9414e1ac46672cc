"""The crossover search again and again: the best children become the next parents.

The score against the current parents says little after the first generation: children of parents
that are alike agree with both. So the score against the original parents, which stay the same,
stands beside it everywhere, and may be what selects.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.dispatch.executor import Executor
from engine.layout import GENERATIONS_SETTINGS
from engine.run_lock import take_lock
from engine.stages.networks import Network
from engine.stages.reports.files import write_json
from engine.stages.roles import Role, load_role, save_role, sidecar
from engine.stages.search.generation_settings import Generations
from engine.stages.search.output import Found, Search
from engine.stages.search.ranking import Entry, ranked
from engine.stages.search.run import crossover_search
from engine.stages.search.settings import claim
from populations.regular_files import sha256_of
from populations.tensor_file import canonical_json
from strategies.mutation import Newborn

ORIGINALS = ("original_parent_a", "original_parent_b")
ID_LENGTH = 12
SUMMARY, LINEAGE = "multi_gen_summary.json", "lineage.json"


@dataclass(frozen=True)
class _Parent:
    """A parent of one generation: its file, its id in the lineage, and whether it is a mutant."""

    role: Role
    id: str
    is_mutated: bool = False


@dataclass(frozen=True)
class MultiGeneration:
    """What came of a search over generations.

    Attributes:
        summaries: What ``multi_gen_summary.json`` holds: one entry per generation.
        lineage: What ``lineage.json`` holds: one entry per child, its parents before it.
    """

    summaries: list[dict[str, Any]]
    lineage: list[dict[str, Any]]


def multi_generation_search(
    search: Search,
    generations: Generations,
    run_dir: Path,
    executor: Executor,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> MultiGeneration:
    """Carry out a search over generations, or go on with one, and write its files.

    Args:
        search: The search of the first generation; it has the original parents.
        generations: How one generation follows another.
        run_dir: Where it goes; each generation has a folder in it.
        executor: Where children are made.
        stop: Set it to stop after what is in flight.
        tell: Told what happens.

    Raises:
        StageError: As in :func:`engine.stages.search.run.crossover_search`.
        RunDirectoryError: Another process works in ``run_dir``.
        RunInterruptedError: ``stop`` was set before the end.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with take_lock(run_dir):
        settings = generations.settings(search)
        claim(run_dir / GENERATIONS_SETTINGS, settings, grows="generations")
        return _generations(search, generations, run_dir, executor, stop, tell)


def _generations(
    search: Search,
    generations: Generations,
    run_dir: Path,
    executor: Executor,
    stop: threading.Event | None,
    tell: Callable[[str], None],
) -> MultiGeneration:
    done = MultiGeneration([], [])
    parents = (_Parent(search.parent_a, ORIGINALS[0]), _Parent(search.parent_b, ORIGINALS[1]))
    original_b = parents[1]
    first: Found | None = None
    for number in range(generations.n_generations):
        folder = run_dir / f"gen_{number}"
        tell(f"generation {number} of {generations.n_generations - 1}")
        current = replace(
            search,
            parent_a=parents[0].role,
            parent_b=parents[1].role,
            space=search.space.shifted(generations.seed + number),
        )
        found = crossover_search(current, folder, executor, stop, tell)
        first = first or found
        originals = [
            first.judge.entry(trial, result)
            for trial, result in zip(found.trials, found.results, strict=True)
        ]
        ids = {
            entry.child_id: _id_of(number, entry, parents, folder)
            for entry in found.entries
            if entry.score is not None
        }
        done.lineage.extend(_lineage(number, found, originals, ids, parents))
        selected = ranked(originals if generations.score_against == "original" else found.entries)
        chosen = [entry for entry in selected if entry.score is not None]
        promoted: tuple[str | None, str | None] = (None, None)
        if number + 1 < generations.n_generations:
            following = _promoted(chosen, ids, folder, run_dir, number + 1, generations)
            parents = (following[0], following[1] if len(following) > 1 else original_b)
            promoted = (parents[0].id, parents[1].id)
        done.summaries.append(_summary(number, found, originals, ids, chosen[0], promoted))
        write_json(run_dir / SUMMARY, done.summaries)
        write_json(run_dir / LINEAGE, done.lineage)
    return done


def _promoted(
    chosen: Sequence[Entry],
    ids: dict[str, str],
    folder: Path,
    run_dir: Path,
    generation: int,
    generations: Generations,
) -> list[_Parent]:
    """Return the one or two best children as parents of a generation, mutated where asked for."""
    count = 1 if generations.selection == "best_vs_original" else 2
    parents = []
    for index, entry in enumerate(chosen[: generations.keep_top_k][:count]):
        name = f"parent_{'AB'[index]}"
        role = load_role(name, folder / entry.row["child_pt_path"])
        if generations.mutation_std > 0:
            role = _mutant(role, run_dir / f"gen_{generation}", generation, index, generations)
        parents.append(_Parent(role, ids[entry.child_id], generations.mutation_std > 0))
    return parents


def _mutant(
    child: Role, folder: Path, generation: int, index: int, generations: Generations
) -> Role:
    """Return a child with noise on its weights, written beside the children that come of it."""
    seed = generations.seed if generations.mutation_seed is None else generations.mutation_seed
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(generation, index)))
    mutation, spec = generations.mutation(), child.network.spec
    weights = mutation.mutate(Newborn(child.network.weights, spec), rng)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{child.name}.pt"
    dropout = child.sidecar["architecture"]["dropout"]
    fields = {
        "sources": {"child": child.source(folder)},
        "states": child.sidecar.get("states"),
        "environment": child.sidecar.get("environment"),
        "seed": seed,
        "config": {"mutation": mutation.name, **mutation.params},
    }
    save_role(path, Network(spec, weights), sidecar("mutant", spec, dropout, **fields))
    return load_role(child.name, path)


def _id_of(generation: int, entry: Entry, parents: tuple[_Parent, _Parent], folder: Path) -> str:
    """Return an id that no other child has, be it of another generation or the same network.

    It is a hash of the child's file, of its place, and of its parents' ids, so that no child can
    be its own ancestor.
    """
    file = folder / entry.row["child_pt_path"]
    content = {
        "generation": generation,
        "child": entry.child_id,
        "parents": [parent.id for parent in parents],
        "sha256": sha256_of(file),
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:ID_LENGTH]


def _lineage(
    number: int,
    found: Found,
    originals: Sequence[Entry],
    ids: dict[str, str],
    parents: tuple[_Parent, _Parent],
) -> list[dict[str, Any]]:
    return [
        {
            "generation": number,
            "child_id": ids[entry.child_id],
            "name": entry.child_id,
            "child_pt_path": f"gen_{number}/{entry.row['child_pt_path']}",
            "parent_a_id": parents[0].id,
            "parent_b_id": parents[1].id,
            "primary_metric": entry.row["primary_metric"],
            **_against_originals(original),
            "mutation_applied": any(parent.is_mutated for parent in parents),
            "parent_a_mutated": parents[0].is_mutated,
            "parent_b_mutated": parents[1].is_mutated,
        }
        for entry, original in zip(found.entries, originals, strict=True)
        if entry.child_id in ids
    ]


def _against_originals(entry: Entry) -> dict[str, Any]:
    return {
        "primary_metric_vs_original": entry.row["primary_metric"],
        "child_vs_original_a_agreement": entry.row["child_vs_parent_a_agreement"],
        "child_vs_original_b_agreement": entry.row["child_vs_parent_b_agreement"],
    }


def _summary(
    number: int,
    found: Found,
    originals: Sequence[Entry],
    ids: dict[str, str],
    best: Entry,
    promoted: Sequence[str | None],
) -> dict[str, Any]:
    """Return the entry of a generation; ``best`` is the child that was selected first."""
    current = {entry.child_id: entry for entry in found.entries}[best.child_id]
    original = {entry.child_id: entry for entry in originals}[best.child_id]
    scores = [entry.score.value for entry in found.entries if entry.score is not None]
    against = [entry.score.value for entry in originals if entry.score is not None]
    return {
        "generation": number,
        "n_children": len(scores),
        "best_primary_metric": current.row["primary_metric"],
        "best_primary_metric_se": current.row["primary_metric_se"],
        "best_return_mean": current.row["return_mean"],
        "mean_primary_metric": float(np.mean(scores)),
        "parents_agree": found.parents_agree,
        **{f"best_{name}": value for name, value in _against_originals(original).items()},
        "mean_primary_metric_vs_original": float(np.mean(against)),
        "best_child_id": ids[best.child_id],
        "best_child_name": best.child_id,
        "promoted_parent_a_id": promoted[0],
        "promoted_parent_b_id": promoted[1],
        "run_dir": f"gen_{number}",
    }
