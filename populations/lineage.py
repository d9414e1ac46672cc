"""Ancestry of a genome: who its ancestors are, and its family tree as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from populations.errors import LeaderboardError

Parents = Mapping[str, Sequence[str]]
"""Ids of the parents of each genome, the fitter one first."""


def parents_from_rows(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return the parents of each genome of a leaderboard.

    A genome that was born twice keeps the parents of its first birth.

    Raises:
        LeaderboardError: A ``parents`` cell is not a JSON list of genome ids.
    """
    parents_of: dict[str, tuple[str, ...]] = {}
    born = frame[frame["genome"].notna() & frame["parents"].notna()]
    for genome_id, cell in zip(born["genome"], born["parents"], strict=True):
        if parents_of.get(genome_id):
            continue
        try:
            parents = json.loads(cell)
        except (RecursionError, ValueError) as error:
            raise LeaderboardError(_not_parents(genome_id, cell)) from error
        if not (isinstance(parents, list) and all(isinstance(name, str) for name in parents)):
            raise LeaderboardError(_not_parents(genome_id, cell))
        parents_of[genome_id] = tuple(parents)
    return parents_of


def ancestors(genome_id: str, parents_of: Parents) -> dict[str, int]:
    """Return all ancestors of a genome, the nearest first.

    Args:
        genome_id: The genome.
        parents_of: Parents of each genome; a genome that is not in it has none.

    Returns:
        The smallest number of births between the genome and each ancestor: 1 for a parent. A genome
        that is its own ancestor, by being born again, is left out.
    """
    distances = {genome_id: 0}
    level = [genome_id]
    depth = 0
    while level:
        depth += 1
        parents = [parent for child in level for parent in parents_of.get(child, ())]
        level = [parent for parent in dict.fromkeys(parents) if parent not in distances]
        distances |= dict.fromkeys(level, depth)
    del distances[genome_id]
    return distances


def family_tree(
    genome_id: str,
    parents_of: Parents,
    describe: Callable[[str], str] = str,
    max_depth: int | None = None,
) -> str:
    """Draw the ancestry of a genome as indented text.

    Args:
        genome_id: The genome at the root.
        parents_of: Parents of each genome; a genome that is not in it has none.
        describe: What is written for a genome, on one line; its id by default.
        max_depth: Generations of ancestors that are drawn; all by default.

    Returns:
        One line per genome. The parents of a genome are drawn once: where it is met again, its line
        ends in ``(see above)``. Where ``max_depth`` cuts, the line tells how many ancestors follow.
    """
    return "\n".join(_lines(genome_id, parents_of, describe, max_depth))


def describe_rows(frame: pd.DataFrame) -> Callable[[str], str]:
    """Return a ``describe`` for :func:`family_tree` that tells operator, generation and fitness.

    Args:
        frame: One row per genome, as from ``best_rows``.
    """
    named = frame[frame["genome"].notna()]
    rows: dict[str, Any] = dict(zip(named["genome"], named.to_dict("records"), strict=True))

    def describe(genome_id: str) -> str:
        row = rows.get(genome_id)
        if row is None:
            return f"{genome_id}  not on the leaderboard"
        parts = [str(row["kind"])]
        if not pd.isna(row["operator"]):
            parts.append(str(row["operator"]))
        parts.append(f"generation {row['generation']}")
        if not pd.isna(row["fitness"]):
            parts.append(f"fitness {row['fitness']:.6g}")
        return f"{genome_id}  {', '.join(parts)}"

    return describe


def _lines(
    root: str, parents_of: Parents, describe: Callable[[str], str], max_depth: int | None
) -> Iterator[str]:
    drawn: set[str] = set()
    # (genome, what stands before it, what stands before its parents, depth); a stack instead of
    # recursion, because a run may have thousands of generations
    stack = [(root, "", "", 0)]
    while stack:
        genome_id, before, below, depth = stack.pop()
        parents = list(dict.fromkeys(parents_of.get(genome_id, ())))
        line = before + describe(genome_id)
        if parents and genome_id in drawn:
            yield f"{line} (see above)"
            continue
        if parents and max_depth is not None and depth >= max_depth:
            n_more = len(ancestors(genome_id, parents_of))
            yield f"{line} ({n_more} more ancestor{'' if n_more == 1 else 's'})"
            continue
        drawn.add(genome_id)
        yield line
        for i, parent in reversed(list(enumerate(parents))):
            last = i == len(parents) - 1
            branch, rest = ("└── ", "    ") if last else ("├── ", "│   ")
            stack.append((parent, below + branch, below + rest, depth + 1))


def _not_parents(genome_id: str, cell: str) -> str:
    return (
        f"the parents of genome {genome_id} must be a JSON list of genome ids, found {cell[:80]!r}"
    )
