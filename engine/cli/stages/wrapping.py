"""Lines of progress that a terminal of 80 columns shows without breaking words."""

from __future__ import annotations

import textwrap

import click

COLUMNS = 80


def say(line: str) -> None:
    """Print a sentence in lines of at most 80 columns; only a longer word, such as a path, is more.

    Args:
        line: Without line breaks.
    """
    wrapped = textwrap.wrap(
        line, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    click.echo("\n".join(wrapped))
