"""Go on where nobody reads any more what a run tells: its pipe is closed, or its terminal gone."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


@contextlib.contextmanager
def though_unread(stream: TextIO) -> Iterator[None]:
    """Leave a block, without a word, where it cannot write to a stream.

    What is written there later goes nowhere, also when Python ends and writes what it has kept.

    Args:
        stream: Standard output or standard error.
    """
    try:
        yield
    except OSError:
        with contextlib.suppress(io.UnsupportedOperation), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class LastingStream:
    """A stream like another one, but that it can be written to after that cannot any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        with though_unread(self._stream):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what was kept, or lose it."""
        with though_unread(self._stream):
            self._stream.flush()
