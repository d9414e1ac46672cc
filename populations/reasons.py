"""Reasons: what went wrong, in one line that fits a terminal and a cell of the leaderboard."""

from __future__ import annotations

LONGEST = 500
"""Characters of a reason: a sentence or two, far below what readers of CSV take in one cell."""


def shortened(text: str) -> str:
    """Return a text in one line, its end replaced by an ellipsis where it is long.

    White space of any kind and length becomes one space.
    """
    line = " ".join(text[: 100 * LONGEST].split())  # a text of the user's own may be megabytes long
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def told(error: BaseException) -> str:
    """Return the class and the text of an error as a reason: ``ValueError: boom``.

    An error of the user's own may be unable to say what it is; then its class alone is told.
    """
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # whatever user code raises while it tells what it raised
        return name
    return shortened(f"{name}: {text}")
