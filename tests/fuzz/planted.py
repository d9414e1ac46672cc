"""Readers with a fault of their own, which only somebody who watches their branches finds."""

from __future__ import annotations

from pathlib import Path

from fuzzing.readers import Reader

from populations.errors import CultivarError


def readers(bomb_bytes: int) -> list[Reader]:
    """Return the readers; there are no bombs."""
    return [
        Reader("faulty", "faulty", lambda: [b"a good file"], _faulty),
        Reader("endless", "endless", lambda: [b"a good file"], _endless),
    ]


def _faulty(path: Path) -> None:
    content = path.read_bytes()
    if content[:1] == b"T":
        if content[1:2] == b"r":  # noqa: SIM102  # each is a branch of its own
            if content[2:3] == b"!":
                raise ZeroDivisionError("the planted fault")
    elif not content:
        raise CultivarError("expected something")


def _endless(path: Path) -> None:
    while path.read_bytes()[:1] == b"T":
        pass
