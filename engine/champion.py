"""The champion: chosen on held-out episodes, written with both of its numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.layout import (
    CHAMPION,
    LARGEST_SUMMARY,
    RECIPES,
    SUMMARY,
    pack_path,
    teacher_path,
)
from engine.preparation import Prepared
from engine.run_directory import RunDirectory
from populations.leaderboard import FILE_NAME as LEADERBOARD
from populations.population import Member, Record
from populations.regular_files import read_regular
from populations.storage import save_genome
from populations.tensor_file import write_atomically

TEXTS = ("genome", "kind")
NUMBERS = (
    *("generation", "fitness_holdout", "fitness_holdout_sem", "episodes_holdout"),
    *("size_bytes", "parameters"),
)
"""What is told of a champion."""
LARGEST = 1e300


@dataclass(frozen=True)
class Champion:
    """The best genome of a run.

    Attributes:
        path: Its genome file.
        summary: What ``champion.json`` says.
    """

    path: Path
    summary: dict[str, Any]


def crowned(directory: RunDirectory) -> Champion | None:
    """Return the champion of a run that is finished and whose files are all there, or None."""
    path, generations = directory.path, directory.config.evolution.generations
    files = [path / CHAMPION, path / SUMMARY, path / LEADERBOARD, path / RECIPES]
    packs = (pack_path(path, generation) for generation in range(generations + 1))
    # One after the other: a configuration of somebody else may speak of billions of generations.
    is_whole = all(file.exists() for file in itertools.chain(files, packs))
    if directory.stage("champion") is None or not is_whole:
        return None
    if not directory.has_whole_leaderboard():
        return None
    summary = _read_summary(path / SUMMARY)
    return None if summary is None else Champion(path / CHAMPION, summary)


def _read_summary(path: Path) -> dict[str, Any] | None:
    """Return what ``champion.json`` says, or None where it is damaged and to be written again."""
    try:
        summary = json.loads(read_regular(path, LARGEST_SUMMARY))
        fields = {name: summary[name] for name in (*TEXTS, *NUMBERS)}
        teachers = [
            (teacher["fitness_holdout"], teacher["size_bytes"]) for teacher in summary["teachers"]
        ]
    except (LookupError, OSError, RecursionError, TypeError, ValueError):
        return None
    numbers = [*(fields[name] for name in NUMBERS), *itertools.chain(*teachers)]
    is_whole = (
        all(isinstance(fields[name], str) and fields[name].isprintable() for name in TEXTS)
        and all(isinstance(n, int | float) and abs(n) <= LARGEST for n in numbers)
        and len(teachers) > 0
    )
    return summary if is_whole else None


def crown(
    directory: RunDirectory, prepared: Prepared, played: Sequence[tuple[Member, Record]]
) -> Champion:
    """Choose the candidate with the highest held-out return and write it.

    Ties go to the higher fitness, then to the longer record, then to the older genome. The
    held-out return of the winner of ``k`` candidates is itself flattering: the best of 8 equal ones
    is expected 1.4 standard errors above their mean if their returns are independent, and less as
    they play the same episodes. For a claim, play fresh episodes, as ``compare_breeding.py`` does.

    Args:
        directory: The run.
        prepared: Teachers and context of the run.
        played: Candidates with their records over the held-out episodes.
    """
    winner, held_out = max(
        played, key=lambda pair: (pair[1].mean, *(-value for value in pair[0].rank_key))
    )
    genome = winner.genome
    path = directory.path / CHAMPION
    directory.check()
    save_genome(path, genome)
    teachers = [row for row in directory.rows("baselines") if row.kind == "teacher"]
    summary = {
        "genome": genome.id,
        "kind": genome.lineage.kind,
        "generation": genome.lineage.generation,
        "parents": list(genome.lineage.parents),
        "operator": genome.lineage.operator,
        "fitness": winner.fitness,
        "fitness_sem": winner.record.sem,
        "episodes": winner.record.episodes,
        "fitness_holdout": held_out.mean,
        "fitness_holdout_sem": held_out.sem,
        "episodes_holdout": held_out.episodes,
        "size_bytes": path.stat().st_size,
        "parameters": genome.spec.n_parameters,
        "environment": directory.config.environment.id,
        "network": genome.spec.to_dict(),
        "teachers": [
            {
                "name": teacher.name,
                "fitness_holdout": row.fitness_holdout,
                "size_bytes": teacher_path(directory.path, teacher.name).stat().st_size,
            }
            for teacher, row in zip(prepared.teachers, teachers, strict=True)
        ],
        "file": CHAMPION,
    }
    text = json.dumps(summary, indent=2, sort_keys=True, allow_nan=False) + "\n"
    directory.check()
    write_atomically(directory.path / SUMMARY, text.encode())
    return Champion(path, summary)
