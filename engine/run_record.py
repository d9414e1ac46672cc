"""What a run has recorded so far, read without changing it: the run may be in progress.

Everything comes from the journal, which is the truth of a run. Nothing here needs torch or Ray, so
that looking at a run is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.config_evolution import each
from engine.config_file import load_config
from engine.errors import RunDirectoryError
from engine.layout import CONFIG, JOURNAL, LARGEST_SUMMARY, SUMMARY
from engine.record_checks import check_teachers, understood
from engine.records import birth_columns, record_of, result_from_event, row_from_event
from engine.run_lock import Holder, holder_of
from populations.genome import Genome
from populations.journal import read_journal
from populations.leaderboard import Row
from populations.plans import Kind, Result
from populations.regular_files import read_regular

BIRTH_PHASES = ("ancestor", "students", "children")
LISTED = 8  # run directories in an error message
# What a status does not need, and what is the same in many rows.
MADE_WITH = ("parents", "operator_params", "align", "preset", "mutation", "finetune", "agreements")
SHARED = ("run", "kind", "status", "operator", "node", "created_at")


@dataclass(frozen=True)
class RunRecord:
    """One run as far as it is recorded.

    Attributes:
        path: Its directory.
        process: The process that works on it, or None.
        config: Its configuration.
        stages: What each finished stage left behind, by name, without its rows.
        rows: Rows of the finished stages, oldest first.
        pending: Births of the stage that is not finished yet; how they were made is not known
            before it is, but for their operator where the genome or the reason tells it.
    """

    path: Path
    process: Holder | str | None
    config: RunConfig
    stages: Mapping[str, Mapping[str, Any]]
    rows: list[Row]
    pending: list[Row] = field(default_factory=list)

    @property
    def all_rows(self) -> list[Row]:
        """Rows of finished stages, then those of the unfinished one."""
        return [*self.rows, *self.pending]

    @property
    def births(self) -> list[Row]:
        """One row per birth, whatever became of it."""
        return [row for row in self.all_rows if is_birth(row)]

    @property
    def teachers(self) -> list[str]:
        """Names of the teachers, in the order of agreements; empty before they are ready."""
        return [teacher["name"] for teacher in self.stages.get("teachers", {}).get("teachers", ())]

    @property
    def unfinished(self) -> str | None:
        """Name of the first stage that is not finished, or None where the run is."""
        generations = (f"generation-{i}" for i in range(self.config.evolution.generations + 1))
        names = ("teachers", "states", "baselines", *generations, "champion")
        return next((name for name in names if name not in self.stages), None)

    @property
    def champion(self) -> str | None:
        """Id of the champion, or None where there is none yet.

        Raises:
            RunDirectoryError: ``champion.json`` is missing or damaged.
        """
        if "champion" not in self.stages:
            return None  # a file that lies there already may be that of another attempt
        path = self.path / SUMMARY
        try:
            genome = json.loads(read_regular(path, LARGEST_SUMMARY))["genome"]
        except FileNotFoundError as error:
            raise RunDirectoryError(
                f"{path} is missing; 'cultivar resume {self.path}' writes it again"
            ) from error
        except (KeyError, OSError, RecursionError, TypeError, ValueError) as error:
            raise RunDirectoryError(
                f"{path} is damaged; 'cultivar resume {self.path}' writes it again"
            ) from error
        return str(genome)


def read_run(path: Path, brief: bool = False) -> RunRecord:
    """Read what a run has recorded.

    Args:
        path: Its directory.
        brief: Whether rows of finished stages lack what births were made with, which is most of the
            memory that the rows of a long run take.

    Raises:
        RunDirectoryError: There is no run.
        ConfigError: Its configuration is damaged.
        JournalError: Its journal is damaged.
    """
    if not (path / CONFIG).is_file():
        raise not_a_run(path, CONFIG)
    config = load_config(path / CONFIG)
    # Before the journal: a run that ends in between must not look like one that was stopped.
    process = holder_of(path)
    stages: dict[str, dict[str, Any]] = {}
    rows: list[Row] = []
    open_results: dict[tuple[str, int, int], dict[str, Any]] = {}
    for event in _events(path):
        with understood(path / JOURNAL):
            if event.get("type") == "stage":
                recorded = event.pop("rows")
                rows += [row_from_event(_brief(row) if brief else row) for row in recorded]
                stages[event["stage"]] = event
                check_teachers(event.get("teachers", ()))
                # Results come before the stage that they belong to, and stages one after the other.
                open_results.clear()
            elif event.get("type") == "result" and event["phase"] in BIRTH_PHASES:
                open_results[event["phase"], event["generation"], event["index"]] = event
    with understood(path / JOURNAL):
        pending = [_pending_row(config, event) for _, event in sorted(open_results.items())]
    return RunRecord(path, process, config, stages, rows, pending)


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded row without what a birth was made with, and with texts kept once."""
    return {
        name: sys.intern(value) if name in SHARED and isinstance(value, str) else value
        for name, value in row.items()
        if name not in MADE_WITH
    }


def not_a_run(path: Path, lacking: str) -> RunDirectoryError:
    """Return the error for a path that is not a run directory; it names those that lie in it.

    Args:
        path: The path.
        lacking: Name of the file that it should have.
    """
    if not path.exists():
        return RunDirectoryError(f"there is no run directory {path}")
    try:
        inside = sorted(child for child in path.iterdir() if (child / CONFIG).is_file())
    except OSError:  # a file, or a folder that others may not look into
        inside = []
    text = f"{path} is not a run directory: it has no {lacking}"
    if inside:
        more = f" and {len(inside) - LISTED} more" if len(inside) > LISTED else ""
        names = ", ".join(child.name for child in inside[:LISTED])
        text += f". In it are the runs {names}{more}; name one, such as {inside[0]}, or {path}/*"
    return RunDirectoryError(text)


def find_genome(run: RunRecord, row: Row) -> Genome:
    """Return the genome that was born in a row.

    Raises:
        RunDirectoryError: The journal does not hold it.
    """
    key = (_phase(row), row.generation, row.child)
    for event in _events(run.path):
        if (
            event.get("type") == "result"
            and (event.get("phase"), event.get("generation"), event.get("index")) == key
        ):
            with understood(run.path / JOURNAL):
                genome = result_from_event(event).genome
            if genome is not None and genome.id == row.genome:
                return genome
    raise RunDirectoryError(f"{run.path / JOURNAL} does not hold the genome {row.genome}")


def is_birth(row: Row) -> bool:
    """Tell whether a row is that of a birth, not of a teacher or of a genome scored again."""
    return row.child is not None and row.kind != "teacher"


def _events(path: Path) -> Iterator[dict[str, Any]]:
    if not (path / JOURNAL).exists():  # stopped between its first two files
        return iter(())
    return read_journal(path / JOURNAL)


def _pending_row(config: RunConfig, event: Mapping[str, Any]) -> Row:
    """Return what is known of a birth before its generation is finished."""
    result = result_from_event(event)
    genome = result.genome
    kinds: dict[str, Kind] = {"ancestor": "ancestor", "students": "student"}
    # Controls are planned behind the children.
    bred: Kind = "child" if result.index < config.evolution.children else "control"
    kind = kinds.get(result.phase, bred)
    return Row(
        run=config.name,
        kind=kind,
        generation=result.generation,
        child=result.index,
        parents=None if genome is None else genome.lineage.parents,
        operator=_accused(config, kind, result) if genome is None else genome.lineage.operator,
        **birth_columns(result, record_of(result)),
    )


def _accused(config: RunConfig, kind: Kind, result: Result) -> str | None:
    """Return the operator of a child that came to nothing, if the reason names it or there is one.

    Reasons begin like ``unit: ValueError``, ``the child of unit`` or ``unit needs``; but they may
    as well accuse the mutation.
    """
    if kind != "child":
        return None
    known = {name for recipe in config.evolution.recipes for name in each(recipe.operator)}
    if len(known) == 1 and not any(":" in name for name in known):  # as in module:Class
        return known.pop()
    name = result.reason.removeprefix("the child of ").partition(" ")[0].removesuffix(":")
    return name if name in known else None


def _phase(row: Row) -> str:
    return {"ancestor": "ancestor", "student": "students"}.get(row.kind, "children")
