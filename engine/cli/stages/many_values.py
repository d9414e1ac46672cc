"""Options that take several values behind one flag, as in ``--alpha-values 0.3 0.5``."""

from __future__ import annotations

from collections.abc import Sequence

import click


class ManyValues(click.Command):
    """A command whose options with ``multiple=True`` take all values up to the next flag.

    Repeating the flag does the same. click alone knows only that form; the other one is what the
    documented commands have.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat a flag in front of each of its values."""
        flags = {
            flag
            for parameter in self.params
            if isinstance(parameter, click.Option) and parameter.multiple
            for flag in parameter.opts
        }
        return super().parse_args(ctx, spread(args, flags))


def spread(arguments: Sequence[str], flags: set[str]) -> list[str]:
    """Return arguments with each of ``flags`` repeated in front of every value behind it."""
    result: list[str] = []
    current, is_first = None, False
    for argument in arguments:
        if argument.startswith("--"):
            current, is_first = (argument, True) if argument in flags else (None, False)
        elif current is not None:
            if not is_first:
                result.append(current)
            is_first = False
        result.append(argument)
    return result
