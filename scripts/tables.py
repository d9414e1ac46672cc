"""Tables in Markdown, for scripts that write figures into docs/results.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def section(title: str, command: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown below its title and command."""
    lines = [f"### {title}", ""]
    if command:
        lines += [f"`python scripts/{command}`", ""]
    lines += [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def spread(values: Sequence[float], is_share: bool, signed: bool = False) -> str:
    """Return mean, smallest and largest of some values."""
    numbers = [float(np.mean(values)), min(values), max(values)]
    sign = "+" if signed else ""
    texts = [f"{100 * n:{sign}.1f}" if is_share else f"{n:{sign}.3f}" for n in numbers]
    unit = " %" if is_share and not signed else ""
    return f"{texts[0]}{unit} ({texts[1]} to {texts[2]})"


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.1f} %"
