"""What is said where a call hangs, and that nothing is said where the run gets on."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.hang_watch import HangWatch, WatchedProgress, place, watched
from engine.progress import GenerationSummary
from populations.journal import Journal

SUMMARY = GenerationSummary(1, 2, 10, 9.0, 8.0, 9.0, 8.0, None)


class Recorder:
    """A progress that keeps what it is told, and when."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.noted = threading.Event()

    def phase(self, name: str, total: int | None = None) -> None:
        self.calls.append(("phase", name, total))

    def advance(self, n: int = 1, detail: str = "") -> None:
        self.calls.append(("advance", n, detail))

    def generation(self, summary: GenerationSummary) -> None:
        self.calls.append(("generation", summary))

    def workers(self, busy: int, total: int) -> None:
        self.calls.append(("workers", busy, total))

    def note(self, text: str) -> None:
        self.calls.append(("note", text))
        self.noted.set()

    def close(self) -> None:
        self.calls.append(("close",))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_notice_comes_after_the_timeout_and_again_after_each() -> None:
    clock, notes, told = Clock(), [], []
    watch = HangWatch(120, notes.append, clock)
    for second in range(1, 401):
        clock.now = 1000.0 + second
        before = len(notes)
        assert 0 < watch.look() <= 120
        told += [second] * (len(notes) - before)
    assert told == [120, 240, 360]
    assert notes[1].startswith(
        "no progress for 0:04:00, phase starting: the driver is in engine.hang_watch.HangWatch.look"
    )


def test_whatever_is_reported_starts_the_count_again() -> None:
    clock, notes = Clock(), []
    watch = HangWatch(120, notes.append, clock)
    progress = WatchedProgress(Recorder(), watch)
    reports = [
        lambda: progress.phase("breeding", 40),
        progress.advance,
        lambda: progress.generation(SUMMARY),
        lambda: progress.note("no result for 0:02:00"),
    ]
    for report in reports:
        clock.now += 119
        report()
        assert watch.look() == 120
    assert notes == []
    clock.now += 60
    progress.workers(3, 4)  # told in every turn of a loop, and no progress
    clock.now += 60
    watch.look()
    assert notes[0].startswith("no progress for 0:02:00, phase breeding: ")


def test_everything_is_handed_on() -> None:
    recorder = Recorder()
    progress = WatchedProgress(recorder, HangWatch(120, recorder.note))
    progress.phase("breeding", 40)
    progress.advance(3, "child 3")
    progress.generation(SUMMARY)
    progress.workers(3, 4)
    progress.note("a node was lost")
    progress.close()
    assert recorder.calls == [
        ("phase", "breeding", 40),
        ("advance", 3, "child 3"),
        ("generation", SUMMARY),
        ("workers", 3, 4),
        ("note", "a node was lost"),
        ("close",),
    ]


def test_a_call_that_hangs_is_named_while_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()

    def hang(descriptor: int) -> None:
        assert recorder.noted.wait(60), "nothing was said"

    with watched(recorder, 0.01) as progress:
        progress.phase("breeding", 40)
        with Journal.create(tmp_path / "journal.jsonl") as journal:
            monkeypatch.setattr(os, "fsync", hang)
            journal.append([{"type": "result"}])
    text = next(call[1] for call in recorder.calls if call[0] == "note")
    assert re.match(
        r"no progress for \d:\d\d:\d\d, phase breeding: the driver is in threading", text
    )
    assert ", called by populations.journal.Journal._write, line " in text
    assert not [thread for thread in threading.enumerate() if thread.name == "hang-watch"]


def test_a_place_that_is_not_ours_is_not_made_up() -> None:
    assert place(None) == "an unknown place"
