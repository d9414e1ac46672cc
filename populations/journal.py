"""Append-only, checksummed event log: the truth of a run.

A journal is a JSON Lines file. Every line is ``{"crc":"8 hex digits","event":{...}}``, where the
event is canonical JSON (sorted keys, no spaces, ASCII, no NaN) and the checksum is the CRC-32 of
the event's bytes, continued from the line before. So an altered line is noticed, and so are lines
that are lost, doubled, or written by two processes at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from populations.durable import is_named, sync_folder
from populations.errors import JournalError
from populations.regular_files import only_regular

FORMAT = "cultivar-journal"
VERSION = 1
LONGEST_HEADER = 1000
LONGEST_LINE = 2**30
"""Bytes: an event is read whole, so that a file of somebody else could fill the memory."""

_PREFIX = b'{"crc":"'
_MIDDLE = b'","event":'
_SUFFIX = b"}\n"
_EVENT_START = len(_PREFIX) + 8 + len(_MIDDLE)


class Journal:
    """The journal of one run, open for appending.

    Attributes:
        path: The file.
        dropped: Bytes of a half-written last line that :meth:`open` cut off; usually 0.
    """

    def __init__(self, path: Path, file: BinaryIO, end: _End, dropped: int) -> None:
        self.path = path
        self.dropped = dropped
        self._file = file
        self._end = end

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Journal:
        """Start a journal in a new file.

        Raises:
            JournalError: The file exists or cannot be made.
        """
        path = Path(path)
        try:
            file = path.open("xb", buffering=0)
        except FileExistsError as error:
            raise JournalError(f"{path} exists already; a journal is never overwritten") from error
        except OSError as error:
            raise JournalError(f"cannot create the journal {path}: {error.strerror}") from error
        journal = cls(path, file, _START, dropped=0)
        try:
            journal._write(_HEADER, _AFTER_HEADER)
            sync_folder(path.parent)
        except OSError as error:
            journal.close()
            raise JournalError(f"cannot create the journal {path}: {error.strerror}") from error
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> tuple[Journal, Iterator[dict[str, Any]]]:
        """Open a journal to read its events and then go on writing.

        The whole file is checked first, in bounded memory. A half-written last line, left by a
        process that died, is cut off; :attr:`dropped` says so.

        Args:
            path: The file.

        Returns:
            The journal and its events so far, read as they are asked for.

        Raises:
            JournalError: The file is missing, is not a journal, or a line is corrupt.
        """
        path = Path(path)
        end = _START
        for _, after in _lines(path):
            end = after
        with contextlib.ExitStack() as closed_on_error:
            try:
                file = closed_on_error.enter_context(path.open("r+b", buffering=0))
                dropped = path.stat().st_size - end.offset
                file.truncate(end.offset)
                file.seek(end.offset)
                if dropped:
                    os.fsync(file.fileno())
            except OSError as error:
                raise JournalError(
                    f"cannot write to the journal {path}: {error.strerror}"
                ) from error
            journal = cls(path, file, end, dropped)
            if end == _START:  # the process died while it wrote the first line
                journal._write(_HEADER, _AFTER_HEADER)
            closed_on_error.pop_all()
        return journal, journal.events()

    def events(self) -> Iterator[dict[str, Any]]:
        """Return the events that the journal holds by now, read as they are asked for."""
        return _events(self.path, self._end.offset)

    def append(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Write events to disk; they are there, or none is, when this returns or raises.

        Args:
            events: Plain JSON values; finite numbers only.

        Raises:
            JournalError: An event is not plain JSON, the disk refuses, or the journal is closed.
        """
        if self._file.closed:
            raise JournalError(f"the journal {self.path} is closed")
        lines = []
        offset, crc = self._end.offset, self._end.crc
        for event in events:
            try:
                payload = _canonical(event)
            except (TypeError, ValueError) as error:
                raise JournalError(
                    f"an event with the keys {sorted(map(str, event))} is not plain JSON: {error}"
                ) from error
            crc = zlib.crc32(payload, crc)
            lines.append(_line(payload, crc))
            if len(lines[-1]) >= LONGEST_LINE:
                raise JournalError(
                    f"an event with the keys {sorted(map(str, event))} has {len(payload):,} bytes; "
                    f"a journal holds events of less than {LONGEST_LINE:,}"
                )
            offset += len(lines[-1])
        if lines:
            self._write(b"".join(lines), _End(offset, crc))

    @property
    def is_in_place(self) -> bool:
        """Whether the file still lies at :attr:`path`; true once it is closed."""
        return self._file.closed or is_named(self._file, self.path)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, data: bytes, end: _End) -> None:
        """Write ``data`` at the end and wait for the disk; on failure leave no trace of it."""
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
            self._end = end
        except OSError as error:
            raise JournalError(
                f"cannot write to the journal {self.path}: {error.strerror}"
            ) from error
        finally:
            if self._end != end:  # Ctrl-C comes this way too
                self._cut()

    def _cut(self) -> None:
        """Take back what a failed write has left, or else make sure that no line follows it."""
        try:
            self._file.truncate(self._end.offset)
            self._file.seek(self._end.offset)
        except OSError:
            self._file.close()


def read_journal(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Read the events of a journal one by one, without changing it.

    A half-written last line is left out: the run may be in progress.

    Args:
        path: The file.

    Raises:
        JournalError: The file is missing, is not a journal, or a line is corrupt.
    """
    return _events(Path(path), None)


@dataclass(frozen=True, slots=True)
class _End:
    """Where the good lines end, and the checksum that the next line continues from."""

    offset: int
    crc: int


def _events(path: Path, stop: int | None) -> Iterator[dict[str, Any]]:
    """Yield the events of the lines before byte ``stop``, the header left out."""
    for payload, end in _lines(path):
        if stop is not None and end.offset > stop:
            return
        if end != _AFTER_HEADER:
            try:
                event = json.loads(payload)
            except (ValueError, RecursionError) as error:
                raise JournalError(f"{path} holds an event that is not JSON: {error}") from error
            if not isinstance(event, dict):
                raise JournalError(f"{path} holds an event that is no mapping: {event!r:.40}")
            yield event


def _lines(path: Path) -> Iterator[tuple[bytes, _End]]:
    """Yield each good line's event, as bytes, and the end of that line."""
    try:
        file = open(path, "rb", opener=only_regular)  # noqa: SIM115  # closed below
    except FileNotFoundError as error:
        raise JournalError(f"there is no journal {path}") from error
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error.strerror}") from error
    with file:
        header = file.readline(LONGEST_HEADER)
        if header != _HEADER:
            if _HEADER.startswith(header):
                return
            raise JournalError(_wrong_header(path, header))
        yield _HEADER_EVENT, _AFTER_HEADER
        end = _AFTER_HEADER
        number = 1
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise JournalError(f"{path}, line {number}: it has {LONGEST_LINE:,} bytes or more")
            payload = line[_EVENT_START : -len(_SUFFIX)]
            crc = zlib.crc32(payload, end.crc)
            if line != _line(payload, crc):
                # Without its line feed it is the last line, even if more of it arrives by now.
                if not line.endswith(b"\n"):
                    return
                if not file.readline(LONGEST_LINE) and not _opens_with_whole_line(line, end.crc):
                    return
                raise JournalError(
                    f"{path}, line {number}: its checksum does not match; the line is corrupt, or "
                    "a line before it is missing"
                )
            end = _End(end.offset + len(line), crc)
            yield payload, end


def _opens_with_whole_line(line: bytes, crc: int) -> bool:
    """Tell a line that lost its line feed to the next one from a half-written line."""
    try:
        _, length = json.JSONDecoder().raw_decode(line.decode("ascii", errors="replace"))
    except (ValueError, RecursionError):
        return False
    whole = line[:length] + b"\n"
    payload = whole[_EVENT_START : -len(_SUFFIX)]
    return length < len(line) - 1 and whole == _line(payload, zlib.crc32(payload, crc))


def _wrong_header(path: Path, header: bytes) -> str:
    try:
        event = json.loads(header)["event"]
        if event["format"] == FORMAT and event["version"] != VERSION:
            return (
                f"{path} is a journal of format version {event['version']!r:.40}; this version of "
                f"cultivar reads version {VERSION}"
            )
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return f"{path} is not a journal: line 1 must be {_HEADER.decode().strip()}"


def _canonical(event: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(dict(event)).encode("ascii")


def _line(payload: bytes, crc: int) -> bytes:
    return b"%s%08x%s%s%s" % (_PREFIX, crc, _MIDDLE, payload, _SUFFIX)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_HEADER_EVENT = _canonical({"format": FORMAT, "version": VERSION})
_HEADER = _line(_HEADER_EVENT, zlib.crc32(_HEADER_EVENT))
_START = _End(0, 0)
_AFTER_HEADER = _End(len(_HEADER), zlib.crc32(_HEADER_EVENT))
