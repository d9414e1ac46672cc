"""The leaderboard of a run: one CSV row per evaluation, appended to while the run goes on.

The file is derived from the journal and can be rebuilt from it at any time.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pandas as pd

from populations.durable import put_in_place
from populations.errors import LeaderboardError
from populations.leaderboard_columns import (
    ADDED,
    DTYPES,
    FIXED,
    SCHEMA_VERSION,
    VOLATILE,
    Columns,
    Row,
    column_type,
    in_order,
    read_cell,
)
from populations.population import LARGEST_RETURN
from populations.regular_files import lines_of, no_link, only_regular

__all__ = [
    "FILE_NAME",
    "VOLATILE",
    "Columns",
    "LeaderboardWriter",
    "Row",
    "as_table",
    "join_tables",
    "load_leaderboard",
    "stable_bytes",
]

FILE_NAME = "leaderboard.csv"

Keep = Callable[[Mapping[str, str]], bool]

_ROWS_AT_ONCE = 10_000
_MOST_COLUMNS = 1_000


class LeaderboardWriter:
    """Writes the leaderboard of one run.

    Args:
        path: The CSV file.
        columns: Its columns.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Columns) -> None:
        self.path = Path(path)
        self.columns = columns
        self._file: IO[str] | None = None

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Replace the whole file, at once: a reader sees the old rows or the new ones.

        Raises:
            LeaderboardError: A row does not fit the columns, or the disk refuses.
        """
        self.close()
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "w", encoding="utf-8", newline="", opener=no_link) as file:
                writer = _writer(file)
                writer.writerow(self.columns.names)
                writer.writerows(self.columns.cells(row) for row in rows)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(temporary, self.path)
        except OSError as error:
            raise LeaderboardError(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows at the end, visible to readers when this returns.

        Raises:
            LeaderboardError: A row does not fit the columns, the file has other columns or ends in
                half a line (call :meth:`rewrite`), or the disk refuses.
        """
        text = io.StringIO()
        _writer(text).writerows(self.columns.cells(row) for row in rows)
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(text.getvalue())
            self._file.flush()
        except OSError as error:
            raise LeaderboardError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file, which is on the disk then; a later append opens it again.

        Closing twice is harmless.
        """
        file, self._file = self._file, None
        if file is not None:
            with file:
                file.flush()
                os.fsync(file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> IO[str]:
        header = io.StringIO()
        _writer(header).writerow(self.columns.names)
        file = self.path.open("a+", encoding="utf-8", newline="")
        if file.tell() == 0:
            file.write(header.getvalue())
            return file
        file.seek(0)
        fits = file.readline() == header.getvalue()
        with self.path.open("rb") as tail:
            tail.seek(-1, os.SEEK_END)
            whole = tail.read() == b"\n"
        if not (fits and whole):
            file.close()
            raise LeaderboardError(
                f"cannot append to {self.path}: "
                + ("it ends in half a line" if fits else "it has other columns")
            )
        return file


def load_leaderboard(
    paths: Sequence[str | os.PathLike[str]], keep: Keep | None = None
) -> pd.DataFrame:
    """Read leaderboards into one table.

    A half-written last line is left out: the run may be in progress.

    Args:
        paths: Run directories or CSV files; a file that is named twice is read once.
        keep: Which rows to keep, given their cells as text by column; all by default. Memory is
            taken for those alone, where a long run has millions.

    Returns:
        The rows in order, on the union of the columns. Counts are ``Int64``, measurements
        ``float64``, everything else ``string``; lists and mappings stay JSON text.

    Raises:
        LeaderboardError: A file is missing or is not a leaderboard of this schema version.
    """
    files: dict[Path, Path] = {}
    for path in paths:  # read by the name given: the pipe of a shell has none when resolved
        file = _file_of(Path(path))
        files.setdefault(file.resolve(), file)
    if not files:
        raise LeaderboardError("name at least one run directory or leaderboard.csv")
    return join_tables([_read(file, keep) for file in files.values()])


def as_table(rows: Iterable[Row], columns: Columns) -> pd.DataFrame:
    """Return rows as :func:`load_leaderboard` would read them from a file.

    Raises:
        LeaderboardError: A row does not fit the columns.
    """
    cells = [columns.cells(row) for row in rows]
    return join_tables([_table(Path(FILE_NAME), list(columns.names), list(enumerate(cells)))])


def join_tables(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several tables, at least one, on the union of their columns."""
    found = dict.fromkeys(name for frame in frames for name in frame.columns)
    names = in_order({**found, **dict.fromkeys(ADDED)})
    dtypes = {name: DTYPES[column_type(name)] for name in names}
    whole = [frame.reindex(columns=names).astype(dtypes) for frame in frames]
    return pd.concat(whole, ignore_index=True)


def stable_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return a leaderboard without its volatile columns, to compare two runs byte for byte.

    Args:
        path: A run directory or CSV file.

    Raises:
        LeaderboardError: It is missing or is not a leaderboard of this schema version.
    """
    text = io.StringIO()
    writer = _writer(text)
    path = _file_of(Path(path))
    with _open_text(path) as file:
        rows = _rows(path, file)
        _, header = next(rows)
        keep = [i for i, name in enumerate(header) if name not in VOLATILE]
        writer.writerow([header[i] for i in keep])
        writer.writerows([row[i] for i in keep] for _, row in rows)
    return text.getvalue().encode()


def _writer(file: IO[str]) -> Any:
    return csv.writer(file, lineterminator="\n")


def _file_of(path: Path) -> Path:
    if path.is_dir():
        if not (path / FILE_NAME).exists():
            raise LeaderboardError(f"{path} is not a run directory: it has no {FILE_NAME}")
        return path / FILE_NAME
    if not path.exists():
        raise LeaderboardError(f"there is no run directory or leaderboard {path}")
    return path


def _open_text(path: Path) -> IO[str]:
    try:
        return open(path, encoding="utf-8-sig", newline="", opener=only_regular)
    except OSError as error:
        raise LeaderboardError(f"cannot read {path}: {error.strerror}") from error


def _read(path: Path, keep: Keep | None) -> pd.DataFrame:
    with _open_text(path) as file:
        rows = _rows(path, file)
        _, header = next(rows)
        if keep is not None:
            rows = (row for row in rows if keep(dict(zip(header, row[1], strict=True))))
        parts = [_table(path, header, [])]
        while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            parts.append(_table(path, header, chunk))
    return pd.concat(parts, ignore_index=True)


def _table(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> pd.DataFrame:
    columns = zip(*(cells for _, cells in rows), strict=True) if rows else [()] * len(header)
    typed = {}
    for name, cells in zip(header, columns, strict=True):
        kind = column_type(name)
        values = []
        for (line, _), cell in zip(rows, cells, strict=True):
            try:
                values.append(read_cell(cell, kind))
            except ValueError as error:
                number = f"a number up to {LARGEST_RETURN:g}"
                expected = "a whole number" if kind == "int" else number
                raise LeaderboardError(
                    f"{path}, line {line}, column {name}: expected {expected}, found {cell!r:.80}"
                ) from error
        typed[name] = pd.Series(values, dtype=DTYPES[kind])
    return pd.DataFrame(typed)


def _rows(path: Path, file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the header and then each whole row, with line numbers; check all but cell types."""
    reader = csv.reader(_whole_lines(file))
    try:
        header = next(reader, None)
        if header is None:
            raise LeaderboardError(
                f"{path} is empty: expected a header line with the column schema_version"
            )
        if "schema_version" not in header:
            raise LeaderboardError(
                f"{path} is not a leaderboard: expected a header line with the column "
                f"schema_version, found {', '.join(header)[:80]!r}"
            )
        if len(header) > _MOST_COLUMNS:
            raise LeaderboardError(
                f"{path}: expected at most {_MOST_COLUMNS:,} columns, not {len(header):,}"
            )
        version = header.index("schema_version")
        yield reader.line_num, header
        for cells in reader:
            if not cells:  # a blank line
                continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(header):
                raise LeaderboardError(
                    f"{where}: expected {len(header)} cells as in the header, found {len(cells)}"
                )
            if cells[version] != str(SCHEMA_VERSION):
                raise LeaderboardError(
                    f"{where}, column schema_version: expected {SCHEMA_VERSION}, "
                    f"found {cells[version]!r:.80}"
                )
            yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise LeaderboardError(f"{path} is not a leaderboard: it is not UTF-8 text") from error
    except (csv.Error, ValueError) as error:
        raise LeaderboardError(f"{path}, line {reader.line_num}: {error}") from error
    # After the rows: another schema version is told by its number, not by its other columns.
    if missing := [name for name in FIXED if name not in (*header, *ADDED)]:
        raise LeaderboardError(f"{path} lacks the columns {', '.join(missing)}")
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        raise LeaderboardError(f"{path} has more than one column {', '.join(doubled)}")


def _whole_lines(file: IO[str]) -> Iterator[str]:
    for line in lines_of(file):
        if not line.endswith(("\n", "\r")):
            return
        yield line
