"""Links in a run directory of somebody else, through which cultivar would write elsewhere.

Whole files are put in place of a link, which does no harm. But a lock is written where it lies, a
journal is appended to, and what goes into a folder goes where its link points.
"""

from __future__ import annotations

from pathlib import Path

from engine.errors import RunDirectoryError
from engine.layout import JOURNAL, LOCK


def check_links(path: Path) -> None:
    """Refuse a directory whose lock, journal or folders are links.

    Args:
        path: The run directory, which may be a link itself: the user has named it.

    Raises:
        RunDirectoryError: One of them is.
    """
    try:
        links = sorted(entry for entry in path.iterdir() if entry.is_symlink())
    except OSError:
        return  # there is nothing; whoever writes there tells why that cannot be done
    for link in links:
        if link.name in (LOCK, JOURNAL) or link.is_dir():
            raise RunDirectoryError(
                f"{link} is a link to {link.readlink()}, where this would write; put the real "
                f"{'folder' if link.is_dir() else 'file'} in its place, or remove the link"
            )
