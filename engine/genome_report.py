"""What a run knows of one genome."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RunDirectoryError
from engine.formatting import format_number
from engine.layout import CHAMPION, pack_path
from engine.run_record import RunRecord
from populations.genome import Genome
from populations.leaderboard import Row
from populations.lineage import Parents, ancestors, family_tree

CHAMPION_NAME = "champion"
LISTED = 8  # ids in an error message


@dataclass(frozen=True)
class GenomeReport:
    """What a run knows of one genome.

    Attributes:
        genome: Its id.
        is_champion: Whether it is the champion of its run.
        birth: The row of its first birth.
        best: Its row with the most episodes, the latest of equals.
        rows: All its rows, oldest first.
        parents: Ids of its parents, fitter first.
        basis: Id of the genome whose order of hidden units it keeps.
        layers: Inputs, hidden widths, and actions of its network.
        norm: Normalization behind the hidden layers.
        vector_dtype: How its biases and normalizations are kept.
        parameters: Number of weights, biases and normalizations.
        size_bytes: Size of its file.
        fitness_holdout: Its mean return over held-out episodes, where it played them.
        fitness_holdout_sem: Its standard error.
        episodes_holdout: Number of these episodes.
        agreements: Share of states where it takes the action of each teacher.
        n_children: Births that it is a parent of.
        best_child: The fittest genome born of it, or None.
        ancestors: Smallest number of births between it and each ancestor within the depth.
        family_tree: Its ancestry as text.
        files: Files of the run directory that hold it.
    """

    genome: str
    is_champion: bool
    birth: Row
    best: Row
    rows: list[Row]
    parents: list[str]
    basis: str
    layers: list[int]
    norm: str
    vector_dtype: str
    parameters: int
    size_bytes: int | None
    fitness_holdout: float | None
    fitness_holdout_sem: float | None
    episodes_holdout: int | None
    agreements: dict[str, float | None]
    n_children: int
    best_child: str | None
    ancestors: dict[str, int]
    family_tree: str
    files: list[str]


def find_row(run: RunRecord, name: str) -> Row:
    """Return the row of the first birth of a genome.

    Args:
        run: The run.
        name: Its id, the beginning of it, or ``champion``.

    Raises:
        RunDirectoryError: No genome, or more than one, has this name.
    """
    births: dict[str, Row] = {}
    for row in run.births:
        if row.genome is not None:
            births.setdefault(row.genome, row)
    if name == CHAMPION_NAME:
        champion = run.champion
        if champion is None:
            raise RunDirectoryError(f"{run.path} has no champion yet: the run is not finished")
        name = champion
    found = [genome for genome in births if genome.startswith(name)]
    if not found:
        near = difflib.get_close_matches(name, births, 3, cutoff=0.5)
        guess = f" Did you mean {' or '.join(near)}?" if near else ""
        raise RunDirectoryError(
            f"no genome of {run.path} has an id that starts with {name!r}; "
            f"'cultivar leaderboard {run.path}' lists them.{guess}"
        )
    if len(found) > 1:
        rest = len(found) - LISTED
        more = f" and {rest} more" if rest > 0 else ""
        raise RunDirectoryError(
            f"{name!r} fits {len(found)} genomes of {run.path}: {', '.join(found[:LISTED])}{more}; "
            "write more of the id"
        )
    return births[found[0]]


def genome_report(run: RunRecord, birth: Row, genome: Genome, depth: int) -> GenomeReport:
    """Gather what a run knows of a genome.

    Args:
        run: The run.
        birth: The row of its birth, from :func:`find_row`.
        genome: The genome itself.
        depth: Generations of ancestors to look at.
    """
    parents_of = _parents(run.births)
    rows = [row for row in run.all_rows if row.genome == genome.id]
    held_out = next((row for row in rows if row.fitness_holdout is not None), None)
    children = [row for row in run.births if genome.id in (row.parents or ())]
    scored = [row for row in children if row.fitness is not None]
    spec = genome.spec
    is_champion = run.champion == genome.id
    files = [str(pack_path(Path(), birth.generation)), *([CHAMPION] if is_champion else [])]
    return GenomeReport(
        genome=genome.id,
        is_champion=is_champion,
        birth=birth,
        best=_best_row(rows),
        rows=rows,
        parents=list(parents_of.get(genome.id, ())),
        basis=genome.lineage.basis,
        layers=[spec.n_inputs, *spec.hidden, spec.n_actions],
        norm=spec.norm,
        vector_dtype=genome.vector_dtype,
        parameters=spec.n_parameters,
        size_bytes=birth.size_bytes,
        fitness_holdout=None if held_out is None else held_out.fitness_holdout,
        fitness_holdout_sem=None if held_out is None else held_out.fitness_holdout_sem,
        episodes_holdout=None if held_out is None else run.config.evaluation.holdout_episodes,
        agreements=dict(zip(run.teachers, birth.agreements, strict=False)),
        n_children=len(children),
        best_child=max(scored, key=lambda row: row.fitness or 0.0).genome if scored else None,
        ancestors={
            name: distance
            for name, distance in ancestors(genome.id, parents_of).items()
            if distance <= depth
        },
        family_tree=family_tree(genome.id, parents_of, _describe(run), depth),
        files=[name for name in files if (run.path / name).is_file()],
    )


def _parents(births: Iterable[Row]) -> Parents:
    """Return the parents of each genome; one that was born twice keeps those of its first birth."""
    parents_of: dict[str, tuple[str, ...]] = {}
    for row in births:
        if row.genome is not None:
            parents_of.setdefault(row.genome, tuple(row.parents or ()))
    return parents_of


def _describe(run: RunRecord) -> Callable[[str], str]:
    """Return what the family tree says of a genome: fitness, and how it was born."""
    rows: dict[str, list[Row]] = {}
    for row in run.all_rows:
        if row.genome is not None:
            rows.setdefault(row.genome, []).append(row)

    def describe(genome: str) -> str:
        known = rows.get(genome)
        if known is None:
            return f"{genome}  not recorded"
        born, fitness = known[0], _best_row(known).fitness
        kind = [] if born.kind == "child" else [born.kind]
        score = f"fitness {format_number(fitness)}"
        return f"{genome}  {', '.join([score, *kind, born.operator or '-'])}, gen {born.generation}"

    return describe


def _best_row(rows: list[Row]) -> Row:
    return max(reversed(rows), key=lambda row: row.episodes or 0)
