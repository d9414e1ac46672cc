"""What events of a journal must hold; a run directory may come from somebody else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from populations.errors import GenomeError, JournalError
from populations.leaderboard_columns import FIXED
from populations.plans import Kind, Status
from populations.population import LARGEST_RETURN

LARGEST = 2**63
RESULT = {
    "phase": "text",
    "generation": "int",
    "index": "int",
    "status": "text",
    "reason": "text",
    "returns": "floats",
    "mean_before": "float",
    "tuned": "int",
    "agreements": "floats",
    "kl": "float",
    "attempts": "int",
    "node": "text",
    "wall_s": "float",
    "cpu_s": "float",
    "created_at": "text",
}
ROW = {**FIXED, "parents": "texts", "scenarios": "gaps", "agreements": "gaps"}
OPTIONAL = ("mean_before", "kl")


@contextmanager
def understood(journal: Path) -> Iterator[None]:
    """Turn what goes wrong with an event into an error that names the journal.

    Raises:
        JournalError: Anything went wrong.
    """
    try:
        yield
    except GenomeError as error:
        raise JournalError(f"{journal} holds a damaged genome: {error}") from error
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise JournalError(
            f"{journal} holds an event that this version of cultivar does not understand: {error!r}"
        ) from error


def check_result(fields: Mapping[str, Any]) -> None:
    """Check the types of all fields of a result but its genome.

    Raises:
        ValueError: One is of another type.
    """
    for name, kind in RESULT.items():
        if fields[name] is not None or name not in OPTIONAL:
            _check(name, fields[name], kind)
    if fields["status"] not in get_args(Status):
        raise ValueError(f"status is {fields['status']!r}")


def check_row(fields: Mapping[str, Any]) -> None:
    """Check the types of all fields of a row that are given.

    Raises:
        ValueError: One is of another type.
    """
    for name, value in fields.items():
        if name in ROW and value is not None:
            _check(name, value, ROW[name])
    if not isinstance(fields["run"], str) or type(fields["generation"]) is not int:
        raise ValueError("a row has no run or generation")
    if fields["kind"] not in get_args(Kind):
        raise ValueError(f"kind is {fields['kind']!r}")
    if fields.get("status", "ok") not in get_args(Status):
        raise ValueError(f"status is {fields['status']!r}")


def check_teachers(teachers: Any) -> None:
    """Check the teachers of a stage: their names are those of files in the run directory.

    Raises:
        ValueError: A name is none, or leads out of the folder.
    """
    for teacher in teachers:
        name = teacher["name"]
        is_plain = isinstance(name, str) and name not in ("", "..") and "\0" not in name
        if not is_plain or Path(name).name != name:
            raise ValueError(f"a teacher is called {name!r}")
        for field in ("sha256", "source"):
            if not isinstance(teacher[field], str):
                raise ValueError(f"{field} of the teacher {name} is {teacher[field]!r:.40}")


def _check(name: str, value: Any, kind: str) -> None:
    if kind in ("floats", "gaps", "texts"):
        entries = value if isinstance(value, list | tuple) else [None]
        inner = "text" if kind == "texts" else "float"
        fits = isinstance(value, list | tuple) and all(
            (entry is None and kind == "gaps") or _fits(entry, inner) for entry in entries
        )
    else:
        fits = _fits(value, kind)
    if not fits:
        raise ValueError(f"{name} is {value!r:.60}")


def _fits(value: Any, kind: str) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "json":
        return isinstance(value, list | dict)
    if kind == "int":
        return isinstance(value, int) and -LARGEST <= value < LARGEST
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= LARGEST_RETURN
