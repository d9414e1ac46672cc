"""A word where a run hangs: a thread beside it says since when, in which phase, and in which call.

An executor says what it waits for in its own loop, see ``engine.dispatch.stall``. A single call can
hang, too: of Ray, while the head of the cluster is gone, or of the disk. Then nothing of the run
gets a turn, and this thread speaks. It touches neither Ray nor the disk. A call that keeps the
interpreter to itself silences it as well; those of Ray and of the system do not.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from engine.formatting import format_duration
from engine.progress import Clock, GenerationSummary, Progress

PACKAGES = ("engine", "strategies", "populations")
GRACE = 1.1
"""Times the timeout, and a second more: the executor, which knows better, is to speak first."""


class HangWatch:
    """Tells where a thread is, whenever there was no progress for a while.

    Args:
        timeout_s: Seconds without progress after which there is a notice, and between two of them.
        note: Told the notice, one line; called from a thread of its own.
        clock: Seconds from any origin.
    """

    def __init__(
        self, timeout_s: float, note: Callable[[str], None], clock: Clock = time.monotonic
    ) -> None:
        self._timeout_s = timeout_s
        self._note = note
        self._clock = clock
        self._phase = "starting"
        self._progress_at = self._noted_at = clock()
        self._watched = threading.get_ident()

    def progress(self, phase: str | None = None) -> None:
        """Count from now on.

        Args:
            phase: The phase that begins; None where it is the same.
        """
        self._phase = phase or self._phase
        self._progress_at = self._noted_at = self._clock()

    def look(self) -> float:
        """Tell where the watched thread is, if it is time to; return in how many seconds it is."""
        now = self._clock()
        if now - self._noted_at >= self._timeout_s:
            self._noted_at = now
            frame = sys._current_frames().get(self._watched)
            self._note(
                f"no progress for {format_duration(now - self._progress_at)}, phase "
                f"{self._phase}: the driver is in {place(frame)}"
            )
        return self._noted_at + self._timeout_s - now


class WatchedProgress:
    """Hands on what a run reports, and tells a watch that the run gets on."""

    def __init__(self, progress: Progress, watch: HangWatch) -> None:
        self._progress = progress
        self._watch = watch

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin a phase."""
        self._watch.progress(name)
        self._progress.phase(name, total)

    def advance(self, n: int = 1, detail: str = "") -> None:
        """Count."""
        self._watch.progress()
        self._progress.advance(n, detail)

    def generation(self, summary: GenerationSummary) -> None:
        """End a generation."""
        self._watch.progress()
        self._progress.generation(summary)

    def workers(self, busy: int, total: int) -> None:
        """Tell how many workers there are."""
        self._progress.workers(busy, total)

    def note(self, text: str) -> None:
        """Tell the user one thing; who can do that does not hang."""
        self._watch.progress()
        self._progress.note(text)

    def close(self) -> None:
        """End the view."""
        self._progress.close()


@contextlib.contextmanager
def watched(progress: Progress, timeout_s: float) -> Iterator[Progress]:
    """Yield what this thread is to report to; where it hangs, ``progress`` gets a note.

    Args:
        progress: Told what happens, and the notices from another thread.
        timeout_s: Seconds without progress after which the executor speaks; a little more later
            the watch does.
    """
    watch = HangWatch(timeout_s * GRACE + 1, progress.note)
    ended = threading.Event()

    def look_again_and_again() -> None:
        while not ended.wait(max(watch.look(), 0.05)):
            pass

    thread = threading.Thread(target=look_again_and_again, name="hang-watch", daemon=True)
    thread.start()
    try:
        yield WatchedProgress(progress, watch)
    finally:
        ended.set()
        thread.join(1.0)  # it may be writing to a terminal that hangs


def place(frame: FrameType | None) -> str:
    """Return in which call a thread is, and where cultivar called that.

    Args:
        frame: The innermost frame of the thread.
    """
    ours = frame
    while ours is not None and _module(ours).partition(".")[0] not in PACKAGES:
        ours = ours.f_back
    if frame is None or ours is None:
        return "an unknown place"
    where = f"{_module(ours)}.{ours.f_code.co_qualname}, line {ours.f_lineno}"
    if ours is frame:
        return where
    return f"{_module(frame)}.{frame.f_code.co_qualname}, called by {where}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))
