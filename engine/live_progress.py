"""The view of a run on a terminal: a few lines that stay in place."""

from __future__ import annotations

import sys
import time
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine.formatting import format_duration, format_rate
from engine.progress import (
    Clock,
    GenerationSummary,
    LogProgress,
    Progress,
    SilentProgress,
    Timing,
    describe_fitness,
)
from engine.unread import LastingStream


class LiveProgress:
    """Shows the current state in a few lines that stay in place, finished generations above them.

    Args:
        console: A terminal.
        clock: Seconds from any origin.
        refresh_per_second: How often the lines are drawn; 0 draws them only when something changes.
    """

    def __init__(
        self, console: Console, clock: Clock = time.monotonic, refresh_per_second: float = 4.0
    ) -> None:
        self._timing = Timing(clock)
        self._summary: GenerationSummary | None = None
        self._workers: tuple[int, int] | None = None
        self._detail = ""
        self._automatic = refresh_per_second > 0
        self._live = Live(
            console=console,
            get_renderable=self.render,
            auto_refresh=self._automatic,
            refresh_per_second=refresh_per_second or 1.0,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # a piped result must stay in its pipe
        )
        self._live.start()

    def phase(self, name: str, total: int | None = None) -> None:
        """Show the phase and start its bar."""
        if self._timing.begin(name, total):
            self._detail = ""
        self._refresh()

    def advance(self, n: int = 1, detail: str = "") -> None:
        """Move the bar."""
        self._timing.done += n
        self._detail = detail or self._detail
        self._refresh()

    def generation(self, summary: GenerationSummary) -> None:
        """Write what the generation came to above the view."""
        self._timing.end_generation(summary)
        self._summary = summary
        # Short enough for 80 columns; births per second stand in the view.
        where = f"gen {summary.generation}/{summary.generations}"
        self._print(f"{where}  {describe_fitness(summary, '  ')}", no_wrap=True)

    def workers(self, busy: int, total: int) -> None:
        """Show the workers."""
        self._workers = (busy, total)
        self._refresh()

    def note(self, text: str) -> None:
        """Write the note above the view."""
        self._print(text)

    def close(self) -> None:
        """Remove the view; what was written above it stays."""
        self._live.stop()

    def render(self) -> RenderableType:
        """Return the lines of the current state."""
        timing, summary = self._timing, self._summary
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(style="bold", no_wrap=True)
        rows.add_column(ratio=1)
        rows.add_column(justify="right", no_wrap=True)
        total = timing.total
        rate = timing.rate()
        counts = f"{timing.done}/{total}" if total else f"{timing.done}"
        if rate is not None:
            counts += f"  {format_rate(rate)}"
        rows.add_row(timing.name or "starting", _bar(timing.done, total, timing.elapsed()), counts)
        if summary is not None:
            rows.add_row(
                "generations",
                _bar(summary.generation, summary.generations, 0.0),
                f"{summary.generation}/{summary.generations}",
            )
        facts = [
            f"elapsed {format_duration(timing.elapsed())}",
            f"left {format_duration(timing.left())}",
        ]
        if self._workers is not None:
            facts.append("workers {}/{} busy".format(*self._workers))
        if self._detail:
            facts.append(self._detail)
        lines: list[RenderableType] = [rows]
        if summary is not None:
            lines.append(Text(describe_fitness(summary, "  "), no_wrap=True, overflow="ellipsis"))
        lines.append(Text("  ".join(facts), style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _print(self, text: str, no_wrap: bool = False) -> None:
        line = Text(f"[{format_duration(self._timing.elapsed())}] {text}")
        self._live.console.print(line, no_wrap=no_wrap, overflow="ellipsis" if no_wrap else "fold")
        self._refresh()

    def _refresh(self) -> None:
        if not self._automatic:
            self._live.refresh()


def make_progress(stream: TextIO, quiet: bool = False) -> Progress:
    """Return the view that suits ``stream``: live on a terminal, plain lines elsewhere.

    Args:
        stream: Usually standard error, so that results can be piped.
        quiet: Show nothing.
    """
    if quiet:
        return SilentProgress()
    lasting = cast(TextIO, LastingStream(stream))  # a run goes on where nobody reads of it
    console = Console(file=lasting)
    return LiveProgress(console) if console.is_interactive else LogProgress(lasting)


def _bar(done: int, total: int | None, elapsed: float) -> ProgressBar:
    return ProgressBar(
        total=total, completed=min(done, total) if total else 0, animation_time=elapsed
    )
