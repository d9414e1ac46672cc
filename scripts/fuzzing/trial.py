"""One file and what becomes of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from fuzzing.mutations import CANARY
from populations.errors import LONGEST, CultivarError


def try_file(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """Let a reader read a file.

    Returns:
        ``accepted``, ``rejected`` or ``crash``, and why. A crash is any error but ours, an error
        that is no readable text of usual length, or code in the file that ran.
    """
    outcome, why = _read(read, path)
    if Path(CANARY).exists():
        Path(CANARY).unlink()
        return "crash", "code in the file ran"
    return outcome, why


def _read(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    try:
        read(path)
    except CultivarError as error:
        text = str(error)
        if not text or len(text) > LONGEST:
            return "crash", f"an error of {len(text):,} characters: {text[:100]!r}"
        if not all(character.isprintable() or character == "\n" for character in text):
            return "crash", f"an error that is no readable text: {text!r}"
        return "rejected", text
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        root = str(Path(__file__).parents[2])
        ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(root)]
        near = ours[-1] if ours else where
        text = f"{type(error).__name__}: {str(error)[:200]!r}"
        return "crash", f"{text} at {Path(near.filename).name}:{near.lineno}"
    return "accepted", ""
