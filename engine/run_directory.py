"""The files of one run: where they lie, who may write them, and how a run goes on after a stop."""

from __future__ import annotations

import collections
import contextlib
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from engine.config import RunConfig
from engine.config_file import dump_config, load_config
from engine.errors import ConfigError, RunDirectoryError
from engine.layout import CONFIG, JOURNAL, LOCK, RECIPES, pack_path
from engine.provenance import compare, difference, provenance
from engine.recipe_table import RecipeRow, table_bytes
from engine.records import result_from_event, result_to_event, row_from_event, row_to_event
from engine.run_lock import take_lock
from engine.write_failure import write_failure
from populations.durable import is_named, make_folder
from populations.errors import CultivarError, JournalError, LeaderboardError
from populations.genome import Genome
from populations.journal import Journal, read_journal
from populations.leaderboard import FILE_NAME, Columns, LeaderboardWriter, Row
from populations.plans import Result
from populations.regular_files import lines_of, only_regular
from populations.storage import save_pack
from populations.tensor_file import write_atomically

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""What a file is called until it is whole."""


class RunDirectory:
    """A run directory that this process writes to; no other process can, while it is open.

    The journal is the truth. Results are appended to it as they arrive, and a *stage* (teachers,
    a generation, the champion) is finished by one event that holds its leaderboard rows. Whatever
    is missing after a stop is computed again, to the same bytes.

    Attributes:
        path: The directory.
        config: The run's configuration.
        notes: What a user should know about how the run was opened.
    """

    def __init__(self, path: Path, config: RunConfig, lock: IO[str], journal: Journal) -> None:
        self.path = path
        self.config = config
        self.notes: list[str] = []
        self._lock = lock
        self._journal = journal
        self._results: dict[tuple[str, int, int], Result] = {}  # read back, not asked for yet
        self._unread: Iterator[dict[str, Any]] = iter(())  # what the journal held when opened
        self._stages: dict[str, dict[str, Any]] = {}
        self._n_rows = 0
        self._writer: LeaderboardWriter | None = None
        self._begun = False

    @classmethod
    def open(cls, path: Path, config: RunConfig) -> Self:
        """Create a run directory, or go on with the same run in it.

        Raises:
            RunDirectoryError: It holds another run, something else, or is in use.
            JournalError: Its journal is damaged.
        """
        if path.exists() and not path.is_dir():
            raise RunDirectoryError(f"{path} is not a directory; choose another --run-dir")
        recorded = _recorded_config(path)
        if recorded is not None and recorded.identity() != config.identity():
            raise RunDirectoryError(
                f"{path} holds another run: {difference(recorded, config)}; "
                "choose another --run-dir, or resume that one with "
                f"'cultivar resume {path}'"
            )
        if (path / JOURNAL).exists():
            return cls.resume(path, config)
        ours = {LOCK} if recorded is None else {LOCK, CONFIG}
        if path.exists() and any(
            # A process that is killed while it writes the configuration leaves a temporary file.
            p.name not in ours and not p.name.startswith(f".{CONFIG}.")
            for p in path.iterdir()
        ):
            raise RunDirectoryError(
                f"{path} is not empty and not a run directory; choose another --run-dir"
            )
        try:
            make_folder(path)
        except OSError as error:
            raise RunDirectoryError(
                f"cannot create the run directory {path}: {error.strerror}"
            ) from error
        lock = take_lock(path)
        with _closed_on_error(lock), _told(path):
            _remove_temporary_files(path)
            # Before anything runs, so that a run that dies at once can be resumed.
            write_atomically(path / CONFIG, dump_config(config).encode())
            journal = Journal.create(path / JOURNAL)
            with _closed_on_error(journal):
                directory = cls(path, config, lock, journal)
                directory._begin()
        return directory

    @classmethod
    def resume(cls, path: Path, config: RunConfig | None = None) -> Self:
        """Open a run directory to go on where it stopped.

        Args:
            path: The directory.
            config: The run with other settings of dispatch; None takes the recorded ones.

        Raises:
            RunDirectoryError: There is no run, or it is in use.
            JournalError: Its journal is damaged.
        """
        if not (path / CONFIG).is_file():
            raise RunDirectoryError(f"{path} is not a run directory: it has no {CONFIG}")
        recorded = load_config(str(path / CONFIG))
        if not (path / JOURNAL).exists():  # stopped between its first two files
            return cls.open(path, config or recorded)
        lock = take_lock(path)
        with _closed_on_error(lock), _told(path):
            _remove_temporary_files(path)
            journal, events = Journal.open(path / JOURNAL)
            directory = cls(path, config or recorded, lock, journal)
            if journal.dropped:
                directory.notes.append(
                    f"dropped a half-written last line of {path / JOURNAL} "
                    f"({journal.dropped} bytes)"
                )
            with _closed_on_error(journal):
                for event in events:
                    with directory._understanding():
                        directory._replay(event)
                directory._unread = journal.events()
                if not directory._begun:  # stopped before its first event
                    directory._begin()
        return directory

    def _begin(self) -> None:
        """Record what the run depends on besides this directory."""
        self._journal.append([{"type": "run", **provenance(self.config)}])
        self._begun = True

    def _replay(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "stage":
            self._stages[event["stage"]] = _without_rows(event)
            self._n_rows += len(event["rows"])
        elif kind == "run":
            self._begun = True
            self.notes += compare(self.path / CONFIG, event, self.config)

    @contextlib.contextmanager
    def _understanding(self) -> Iterator[None]:
        """Name the journal where an event of it is not what it should be."""
        try:
            yield
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise JournalError(
                f"{self.path / JOURNAL} holds an event that this version of cultivar does not "
                f"understand: {error!r}"
            ) from error

    def check(self) -> None:
        """Make sure that the directory is still the one that was opened; before each write by path.

        Its path may lead to nothing by now, or to the directory of another process, whose files
        would be replaced.

        Raises:
            RunDirectoryError: It is not, or its lock or its journal is not.
        """
        named = self._lock.closed or is_named(self._lock, self.path / LOCK)
        if named and self._journal.is_in_place:
            return
        if self.path.is_dir():
            what = (
                f"{self.path} is not the directory any more that this run was writing to, or lacks "
                f"its {LOCK} or {JOURNAL}: nothing more is written there, since another process "
                "may work there now"
            )
        else:
            what = f"{self.path} was moved or deleted while its run went on"
        raise RunDirectoryError(
            f"{what}; if it was moved, go on with 'cultivar resume' and its new place"
        )

    def open_leaderboard(self, columns: Columns) -> None:
        """Write the leaderboard of all finished stages, and keep it open for more."""
        self.check()
        self._writer = LeaderboardWriter(self.path / FILE_NAME, columns)
        self._writer.rewrite(self.rows())

    def has_whole_leaderboard(self) -> bool:
        """Tell whether the leaderboard file has all rows of the finished stages.

        A stage is finished before its rows are appended, and a disk may be full just then.
        """
        try:
            file_path = self.path / FILE_NAME
            with open(file_path, encoding="utf-8", newline="", opener=only_regular) as file:
                ends = collections.deque(lines_of(file), maxlen=1)
                file.seek(0)
                n_lines = sum(1 for _ in csv.reader(lines_of(file), strict=True))
        except (OSError, ValueError, csv.Error):
            return False
        return n_lines == 1 + self._n_rows and ends[0].endswith("\n")

    def rows(self, stage: str | None = None) -> Iterator[Row]:
        """Read the leaderboard rows of a finished stage, or of all, back from the journal."""
        for event in read_journal(self.path / JOURNAL):
            if event.get("type") == "stage" and stage in (None, event["stage"]):
                with self._understanding():
                    rows = [row_from_event(row) for row in event["rows"]]
                yield from rows
                if stage is not None:
                    return

    def recorded(self, key: tuple[str, int, int]) -> Result | None:
        """Return the recorded result of a plan, and forget it here; None where there is none.

        The journal is read on until the result is found. Plans are asked for in the order in which
        generations were recorded, so that the results of one generation are in memory, not those
        of all.

        Raises:
            JournalError: It holds something else than a result.
        """
        while key not in self._results:
            event = next(self._unread, None)
            if event is None:
                return None
            if event.get("type") == "result":
                with self._understanding():
                    result = result_from_event(event)
                self._results[result.key] = result
        return self._results.pop(key)

    def record(self, results: Sequence[Result]) -> None:
        """Write results to the journal; they are on disk when this returns."""
        self.check()
        self._journal.append([result_to_event(result) for result in results])

    def stage(self, name: str) -> dict[str, Any] | None:
        """Return what a finished stage left behind, or None."""
        return self._stages.get(name)

    def finish_stage(
        self, name: str, rows: Callable[[], Iterable[Row]], data: dict[str, Any] | None = None
    ) -> None:
        """Finish a stage, once: its rows go to the journal and to the leaderboard.

        Args:
            name: Name of the stage.
            rows: Makes its rows; not called where the stage is finished already.
            data: What :meth:`stage` is to give back, plain JSON.
        """
        if name in self._stages:
            return
        made = list(rows())
        self.check()
        event = {
            **(data or {}),
            "type": "stage",
            "stage": name,
            "rows": [row_to_event(row) for row in made],
        }
        self._journal.append([event])
        self._stages[name] = _without_rows(event)
        self._n_rows += len(made)
        if self._writer is not None:
            self._writer.append(made)

    def save_genomes(self, generation: int, genomes: Iterable[Genome]) -> None:
        """Write the genomes born in a generation into its pack."""
        self.check()
        folder = self.path / "genomes"
        make_folder(folder)
        distinct = {genome.id: genome for genome in genomes}
        if distinct:
            save_pack(pack_path(self.path, generation), distinct.values())

    def save_recipes(self, rows: Sequence[RecipeRow]) -> None:
        """Write the table of recipes, in place of the one of an earlier generation."""
        self.check()
        write_atomically(self.path / RECIPES, table_bytes(rows))

    def close(self) -> None:
        """Close all files and let others in."""
        self._unread = iter(())  # lets go of the journal
        with contextlib.ExitStack() as files:
            files.callback(self._lock.close)
            files.callback(self._journal.close)
            if self._writer is not None:
                files.callback(self._close_leaderboard, self._writer)

    def _close_leaderboard(self, writer: LeaderboardWriter) -> None:
        try:
            writer.close()
        except OSError as error:  # which names no file
            raise OSError(error.errno, error.strerror, str(writer.path)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, and tell in a sentence where something of the run could not be written."""
        try:
            # Or else what is told is not the reason, such as a file that cannot be found.
            if isinstance(error, OSError | CultivarError):
                self.check()
        except RunDirectoryError as gone:
            raise gone from error
        finally:
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        with _told(self.path):
            try:
                self.close()
            except OSError:
                if error is None:
                    raise  # or else it is the same once more: the rest of what was not written
            if error is not None:
                _tell(self.path, error)


def _without_rows(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage as it is kept in memory: a run may have millions of rows."""
    return {name: value for name, value in event.items() if name != "rows"}


def _recorded_config(path: Path) -> RunConfig | None:
    """Return the configuration that a run recorded in a directory, or None.

    Raises:
        RunDirectoryError: There is a journal without a configuration.
    """
    file = path / CONFIG
    if (path / JOURNAL).exists():
        if not file.is_file():
            raise RunDirectoryError(f"{path} has a {JOURNAL} but no {CONFIG}; put it back")
        return load_config(str(file))
    if not file.is_file():
        return None
    # A run was stopped between its first two files, or a user keeps a file of that name here.
    try:
        found = load_config(str(file))
    except ConfigError:
        return None
    return found if dump_config(found) == file.read_text(encoding="utf-8") else None


def _remove_temporary_files(path: Path) -> None:
    """Remove what processes that were killed have left of files that they were writing."""
    for folder in (path, path / "genomes", path / "teachers"):
        for file in folder.glob(".*.tmp"):
            if TEMPORARY.fullmatch(file.name):
                file.unlink(missing_ok=True)


def _tell(path: Path, error: BaseException) -> None:
    """Raise what a user is to know, if an error is about writing in a run directory."""
    told = write_failure(path, error)
    if told is not None:
        raise told from error


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell in a sentence where the block cannot write in a run directory."""
    try:
        yield
    except (OSError, JournalError, LeaderboardError) as error:
        _tell(path, error)
        raise


@contextlib.contextmanager
def _closed_on_error(file: IO[str] | Journal) -> Iterator[None]:
    """Close a file if the block raises."""
    try:
        yield
    except BaseException:
        file.close()
        raise
