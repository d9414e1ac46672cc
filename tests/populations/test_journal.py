from __future__ import annotations

import errno
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from populations.errors import JournalError
from populations.journal import Journal, read_journal

EVENTS: list[dict[str, Any]] = [
    {"type": "plan", "generation": 0, "parents": []},
    {"type": "result", "fitness": 1 / 3, "reason": 'a "quoted"\nline', "ok": None},
    {"type": "result", "fitness": -0.0, "text": "Grüße"},
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=4), values, max_size=3)
    ),
    max_leaves=6,
)
EVENT_LISTS = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4), max_size=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def write(path: Path, events: list[dict[str, Any]]) -> None:
    with Journal.create(path) as journal:
        journal.append(events)


def test_events_come_back_as_they_were_written(path: Path) -> None:
    write(path, EVENTS)
    assert list(read_journal(path)) == EVENTS


@given(events=EVENT_LISTS)
def test_any_json_comes_back(tmp_path_factory: pytest.TempPathFactory, events: list[Any]) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    write(path, events)
    assert list(read_journal(path)) == events


def test_every_line_is_json_with_a_chained_crc32_of_canonical_json(path: Path) -> None:
    write(path, EVENTS)
    lines = path.read_bytes().splitlines()
    assert len(lines) == 1 + len(EVENTS)
    crc = 0
    for line, event in zip(
        lines, [{"format": "cultivar-journal", "version": 1}, *EVENTS], strict=True
    ):
        canonical = json.dumps(event, sort_keys=True, separators=(",", ":"))
        crc = zlib.crc32(canonical.encode(), crc)
        assert line.decode() == f'{{"crc":"{crc:08x}","event":{canonical}}}'


def test_create_refuses_an_existing_file(path: Path) -> None:
    write(path, EVENTS)
    with pytest.raises(JournalError, match=r"journal\.jsonl exists already"):
        Journal.create(path)
    assert list(read_journal(path)) == EVENTS


def test_create_names_the_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot create the journal .*absent"):
        Journal.create(tmp_path / "absent" / "journal.jsonl")


def test_open_names_a_missing_file(path: Path) -> None:
    with pytest.raises(JournalError, match=r"there is no journal .*journal\.jsonl"):
        Journal.open(path)
    with pytest.raises(JournalError, match=r"there is no journal .*journal\.jsonl"):
        list(read_journal(path))


def test_appends_after_reopening_continue_the_file(path: Path, tmp_path: Path) -> None:
    write(path, EVENTS[:2])
    journal, events = Journal.open(path)
    journal.append(EVENTS[2:])
    assert list(events) == EVENTS[:2]  # what was there when it was opened
    journal.close()
    whole = tmp_path / "whole.jsonl"
    write(whole, EVENTS)
    assert journal.dropped == 0
    assert path.read_bytes() == whole.read_bytes()


def test_cutting_the_last_line_anywhere_keeps_all_earlier_events(path: Path) -> None:
    write(path, EVENTS)
    data = path.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(data)):
        path.write_bytes(data[:cut])
        assert list(read_journal(path)) == EVENTS[:2]
        assert path.stat().st_size == cut  # reading changes nothing
        journal, events = Journal.open(path)
        assert journal.dropped == cut - start
        assert list(events) == EVENTS[:2]
        journal.append(EVENTS[2:])
        journal.close()
        assert path.read_bytes() == data


def test_a_journal_cut_within_its_first_line_starts_over(path: Path) -> None:
    write(path, [])
    header = path.read_bytes()
    for cut in range(len(header)):
        path.write_bytes(header[:cut])
        assert list(read_journal(path)) == []
        journal, events = Journal.open(path)
        journal.append(EVENTS)
        journal.close()
        assert list(events) == []
        assert list(read_journal(path)) == EVENTS


@given(position=st.integers(min_value=0), mask=st.integers(1, 255))
def test_a_changed_byte_before_the_last_line_is_detected(
    tmp_path_factory: pytest.TempPathFactory, position: int, mask: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    write(path, EVENTS)
    data = bytearray(path.read_bytes())
    position %= data.rindex(b"\n", 0, -1) + 1  # the line feed before the last line included
    data[position] ^= mask
    path.write_bytes(data)
    with pytest.raises(JournalError, match=r"journal\.jsonl"):
        list(read_journal(path))
    with pytest.raises(JournalError, match=r"journal\.jsonl"):
        Journal.open(path)


def test_a_damaged_last_line_is_dropped(path: Path) -> None:
    write(path, EVENTS)
    data = path.read_bytes()
    path.write_bytes(data[:-3] + b"\0\0\n")
    journal, events = Journal.open(path)
    assert list(events) == EVENTS[:2]
    assert journal.dropped > 0
    journal.close()


def test_a_corrupt_line_is_named(path: Path) -> None:
    write(path, EVENTS)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"0.333", b"0.444")
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=r"journal\.jsonl, line 3: .* is corrupt"):
        Journal.open(path)


@pytest.mark.parametrize(
    "order",
    [[0, 2, 3], [0, 1, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3]],
    ids=["first lost", "second lost", "swapped", "doubled"],
)
def test_lost_swapped_and_doubled_lines_are_detected(path: Path, order: list[int]) -> None:
    write(path, [*EVENTS, {"type": "end"}])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in [*order, 4]))
    with pytest.raises(JournalError, match=r"line \d: .* a line before it is missing"):
        list(read_journal(path))


def test_another_version_is_named(path: Path) -> None:
    path.write_text('{"crc":"00000000","event":{"format":"cultivar-journal","version":7}}\n')
    with pytest.raises(JournalError, match=r"format version 7; this version .* reads version 1"):
        Journal.open(path)


@pytest.mark.parametrize(
    "content", [b"step,reward\n1,2\n", b"[1]\n", b'{"event":3}\n', b"\xff\xfe"]
)
def test_another_file_is_not_a_journal(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalError, match="is not a journal: line 1 must be"):
        Journal.open(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_events_that_are_not_plain_json_write_nothing(path: Path, value: object) -> None:
    with Journal.create(path) as journal:
        with pytest.raises(JournalError, match=r"keys \['fitness', 'type'\] is not plain JSON"):
            journal.append([EVENTS[0], {"type": "result", "fitness": value}])
        journal.append(EVENTS)
    assert list(read_journal(path)) == EVENTS


def test_a_full_disk_leaves_no_half_written_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal.create(path) as journal:
        journal.append(EVENTS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            with pytest.raises(JournalError, match="No space left"):
                journal.append(EVENTS[1:])
        assert list(read_journal(path)) == EVENTS[:1]
        journal.append(EVENTS[1:])
    assert list(read_journal(path)) == EVENTS


def test_an_interrupted_append_leaves_no_half_written_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with Journal.create(path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                journal.append(EVENTS[1:])
        journal.append(EVENTS)
    assert list(read_journal(path)) == EVENTS


def test_append_syncs_once_per_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with Journal.create(path) as journal:
        monkeypatch.setattr(os, "fsync", synced.append)
        journal.append(EVENTS)
        journal.append([])
    assert len(synced) == 1


def test_a_closed_journal_says_so(path: Path) -> None:
    journal = Journal.create(path)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.append(EVENTS)
