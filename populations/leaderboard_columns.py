"""The columns of a leaderboard, what they mean, and how a cell is written.

Every row is one physical line: control characters in text become spaces. A text cell that a
spreadsheet would run as a formula (it starts with ``=``, ``+``, ``-`` or ``@`` and is not a number)
is written behind an apostrophe. Numbers are written so that they are read back exactly, lists and
mappings are compact JSON, and a missing value is an empty cell.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from populations.errors import LeaderboardError
from populations.plans import Align, Kind, Status
from populations.population import LARGEST_RETURN

SCHEMA_VERSION = 1
VOLATILE = ("run", "attempts", "node", "wall_s", "cpu_s", "created_at")
"""The only columns that may differ between two runs of one configuration and seed."""

Cell = Literal["int", "float", "text", "json"]
DTYPES: dict[Cell, str] = {"int": "Int64", "float": "float64", "text": "string", "json": "string"}

FIXED: dict[str, Cell] = {
    "schema_version": "int",
    "run": "text",
    "kind": "text",
    "generation": "int",
    "child": "int",
    "genome": "text",
    "status": "text",
    "reason": "text",
    "parents": "json",
    "operator": "text",
    "operator_params": "json",
    "align": "text",
    "rescale": "int",
    "preset": "text",
    "mutation": "json",
    "finetune": "json",
    "fitness": "float",
    "fitness_sem": "float",
    "episodes": "int",
    "fitness_before_finetune": "float",
    "fitness_holdout": "float",
    "fitness_holdout_sem": "float",
    "return_min": "float",
    "return_max": "float",
    "delta_vs_better_parent": "float",
    "kl": "float",
    "size_bytes": "int",
    "parameters": "int",
    "attempts": "int",
    "node": "text",
    "wall_s": "float",
    "cpu_s": "float",
    "created_at": "text",
}
"""The columns of every leaderboard, in order; agreements come before ``kl``."""
ADDED = ("rescale", "preset")
"""Columns that leaderboards of earlier versions lack: they are read as if they were empty."""

ALIKE = 0.75
"""How much a name must be like a column to be taken for its misspelling; 1 is the same."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
# Lone surrogates stand for undecodable bytes of a file name; UTF-8 cannot hold them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One evaluation.

    Attributes:
        run: Name of the run. Volatile.
        kind: What was evaluated.
        generation: Generation of the evaluation; for a new genome that of its birth.
        child: Number within the generation; None where nothing was born.
        genome: Id of the genome; None for teachers, the ensemble, and what was never born.
        status: What became of it.
        reason: Why it is not ``ok``.
        parents: Ids of the parents, fitter first.
        operator: Name of the crossover operator.
        operator_params: Its arguments.
        align: How the parents were aligned.
        rescale: Whether the hidden units got the parents' statistics; 1 or 0.
        preset: Name of the fine-tuning preset; None where it was not a child that was trained.
        mutation: Name and arguments of the mutation.
        finetune: How it was trained.
        fitness: Mean return over ``episodes``; pooled over generations for elites.
        fitness_sem: Its standard error.
        episodes: Number of episodes behind ``fitness``.
        fitness_before_finetune: Mean return before repair and fine-tuning.
        fitness_holdout: Mean return over held-out episodes.
        fitness_holdout_sem: Its standard error.
        return_min: Lowest return of an episode.
        return_max: Highest return of an episode.
        scenarios: Mean return per scenario, in the order of the columns.
        delta_vs_better_parent: Fitness minus that of the fitter parent.
        agreements: Share of states with the action of each teacher, in the order of the columns.
        kl: Mean KL divergence from the target, in nats.
        size_bytes: Size of the genome's file.
        parameters: Number of weights, biases and normalizations.
        attempts: How often the birth was dispatched. Volatile.
        node: Where it ran. Volatile.
        wall_s: Elapsed seconds. Volatile.
        cpu_s: CPU seconds. Volatile.
        created_at: Time of the evaluation, ISO 8601 in UTC. Volatile.
    """

    run: str
    kind: Kind
    generation: int
    status: Status = "ok"
    child: int | None = None
    genome: str | None = None
    reason: str = ""
    parents: Sequence[str] | None = None
    operator: str | None = None
    operator_params: Mapping[str, Any] | None = None
    align: Align | None = None
    rescale: bool | None = None
    preset: str | None = None
    mutation: Mapping[str, Any] | None = None
    finetune: Mapping[str, Any] | None = None
    fitness: float | None = None
    fitness_sem: float | None = None
    episodes: int | None = None
    fitness_before_finetune: float | None = None
    fitness_holdout: float | None = None
    fitness_holdout_sem: float | None = None
    return_min: float | None = None
    return_max: float | None = None
    scenarios: Sequence[float | None] = ()
    delta_vs_better_parent: float | None = None
    agreements: Sequence[float | None] = ()
    kl: float | None = None
    size_bytes: int | None = None
    parameters: int | None = None
    attempts: int | None = None
    node: str | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    created_at: str | None = None
    schema_version: int = field(default=SCHEMA_VERSION, init=False)


@dataclass(frozen=True)
class Columns:
    """The columns of one run, settled from its configuration before the first row.

    Attributes:
        teachers: Names of the teachers; each has a column ``agreement_<teacher>``.
        scenarios: Names of the scenarios; each has a column ``scenario_<name>``.
    """

    teachers: Sequence[str] = ()
    scenarios: Sequence[str] = ()

    @property
    def agreements(self) -> tuple[str, ...]:
        """Names of the agreement columns."""
        return tuple(f"agreement_{teacher}" for teacher in self.teachers)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All column names, in order."""
        extras = (*(f"scenario_{name}" for name in self.scenarios), *self.agreements)
        return tuple(in_order((*FIXED, *extras)))

    def cells(self, row: Row) -> list[str]:
        """Return the cells of a row as they are written.

        Raises:
            LeaderboardError: The row has agreements or scenarios that are not columns.
        """
        extras: dict[str, float | None] = {}
        for what, names, values in (
            ("scenario", self.scenarios, row.scenarios),
            ("agreement", self.teachers, row.agreements),
        ):
            if values and len(values) != len(names):
                raise LeaderboardError(
                    f"a row has {len(values)} {what} values, but the leaderboard has "
                    f"{len(names)} {what} columns"
                )
            extras |= {f"{what}_{name}": value for name, value in zip(names, values, strict=False)}
        return [
            write_cell(getattr(row, name) if is_fixed else extras.get(name), kind)
            for name, kind, is_fixed in self._kinds
        ]

    @cached_property
    def _kinds(self) -> tuple[tuple[str, Cell, bool], ...]:
        return tuple((name, column_type(name), name in FIXED) for name in self.names)


def column_type(name: str) -> Cell:
    """Return what a column holds; columns that cultivar does not know hold text."""
    if name.startswith(("agreement_", "scenario_")):
        return "float"
    return FIXED.get(name, "text")


def check_column(columns: Iterable[str], name: str) -> str:
    """Return ``name`` if it is one of the columns.

    Raises:
        LeaderboardError: It is not; the message names the closest ones.
    """
    names = list(columns)
    if name in names:
        return name
    raise LeaderboardError(f"no column named {name!r}. {suggestion(name, names)}")


def suggestion(name: str, columns: Iterable[str]) -> str:
    """Say which columns may have been meant."""
    names = list(columns)
    close = difflib.get_close_matches(name, names, n=2, cutoff=ALIKE)
    return f"Did you mean {' or '.join(close)}?" if close else f"Columns: {', '.join(names)}"


def in_order(names: Iterable[str]) -> list[str]:
    """Sort columns: the fixed ones with scenarios and agreements in between, then unknown ones."""
    names = list(names)
    fixed = [name for name in FIXED if name in names]
    scenarios = [name for name in names if name.startswith("scenario_")]
    agreements = [name for name in names if name.startswith("agreement_")]
    known = {*fixed, *scenarios, *agreements}
    delta, kl = fixed.index("delta_vs_better_parent"), fixed.index("kl")
    return [
        *fixed[:delta],
        *scenarios,
        *fixed[delta:kl],
        *agreements,
        *fixed[kl:],
        *(name for name in names if name not in known),
    ]


def write_cell(value: Any, kind: Cell) -> str:
    """Return a cell as it is written."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if kind == "int":
        return str(int(value))
    if kind == "float":
        return repr(float(value))
    if kind == "json":
        plain = list(value) if isinstance(value, Sequence) else dict(value)
        return _ENCODER.encode(plain)
    text = _CONTROL.sub(" ", value).strip()
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not _is_number(text) else text


def read_cell(cell: str, kind: Cell) -> Any:
    """Read what was written, exactly; an empty cell is NaN in a float column, None elsewhere.

    Raises:
        ValueError: The cell is not of its kind.
    """
    if kind == "float":
        measured = float(cell) if cell else math.nan
        if abs(measured) > LARGEST_RETURN:
            raise ValueError("too large for a measurement")
        return measured
    if kind == "int" and cell:
        number = int(cell)
        if not -(2**63) <= number < 2**63:
            raise ValueError("too large for a whole number of 64 bits")
        return number
    return cell or None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
