"""Write the table of flags in docs/pipeline.md from the commands, or check that it is current.

python scripts/document_flags.py --check

docs/pipeline-flags.yaml has the flags of AgentFarm with their defaults, and why ours differ. A flag
of AgentFarm that is not accepted, and one that differs without a reason, is an error.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import yaml
from pages import DOCS, between, write_or_check

from engine.cli.main import cli

COMMAND = "scripts/document_flags.py"
FACTS = DOCS / "pipeline-flags.yaml"
HEADER = "| Flag | AgentFarm | Here | Why |\n|---|---|---|---|\n"
NONE = "none"
STATED = re.compile(r"\s*\[?default: (?P<value>[^\]]+?)\.?\]?$")


@dataclass(frozen=True)
class Flag:
    """One option of a command.

    Attributes:
        names: All of them, as they are typed.
        theirs: The default of AgentFarm by name, for the names that it has.
        ours: Our default.
        meaning: The help text without the default.
        is_hidden: Whether ``--help`` leaves it out.
    """

    names: tuple[str, ...]
    theirs: dict[str, str]
    ours: str
    meaning: str
    is_hidden: bool

    @property
    def is_kept(self) -> bool:
        """Whether it has one name, that of AgentFarm, and its default."""
        return list(self.theirs) == list(self.names) and set(self.theirs.values()) == {self.ours}

    def cells(self) -> tuple[str, str, str]:
        """Return its names, the default of AgentFarm, and ours."""
        names = ", ".join(f"`{name}`" for name in self.names)
        return names, ", ".join(dict.fromkeys(self.theirs.values())) or "new", self.ours


def flags_of(command: click.Command, theirs: dict[str, Any]) -> Iterator[Flag]:
    """Yield the options of a command."""
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        names = (*option.opts, *option.secondary_opts)
        meaning = option.help or ""
        found = STATED.search(meaning)
        ours = default_of(option)
        if found and ours == NONE:
            ours = re.sub(r"^([\d.]+), .*", r"\1", found["value"])  # as in "0, never"
            ours = "by source" if ours == "see above" else ours
        yield Flag(
            names,
            {name: shown(theirs[name]) for name in names if name in theirs},
            ours,
            STATED.sub("", meaning).rstrip(";. ") + ".",
            option.hidden,
        )


def default_of(option: click.Option) -> str:
    """Return the default of an option as text."""
    default = option.default
    if option.is_flag and not isinstance(default, bool):
        return "off"
    if isinstance(default, str | int | float | tuple):
        return shown(default)
    return NONE  # also what click has for "no default"


def shown(value: Any) -> str:
    """Return a default in one way, so that 1e-3 and 0.001 are the same."""
    match value:
        case None | () | []:
            return NONE
        case bool():
            return "on" if value else "off"
        case list() | tuple():
            return " ".join(map(shown, value))
        case int() | float():
            return f"{value:g}" if abs(value) < 1e5 else str(value)
    return str(value)


def section(name: str, facts: dict[str, Any], shared: dict[str, str]) -> str:
    """Return what is said of one command.

    Raises:
        SystemExit: A flag of AgentFarm is missing, or a difference has no reason.
    """
    command = cli.get_command(click.Context(cli), name)
    if command is None:
        raise SystemExit(f"there is no command {name}")
    theirs, reasons = facts["defaults"], facts.get("reasons", {})
    flags = list(flags_of(command, theirs))
    known = {one for flag in flags for one in flag.names}
    if missing := [one for one in (*theirs, *reasons) if one not in known]:
        raise SystemExit(f"{name} does not accept {', '.join(missing)}")
    kept: list[str] = []
    unexplained: list[str] = []
    differing: list[tuple[Flag, str]] = []
    new: list[tuple[Flag, str]] = []
    for flag in flags:
        own = next((reasons[one] for one in flag.names if one in reasons), None)
        if flag.is_kept and own is None:
            kept.append(f"`{flag.names[0]}`")
            continue
        why = own or next((shared[one] for one in flag.names if one in shared), None)
        if flag.theirs:
            differing.append((flag, why or ""))
            if why is None:
                unexplained.append(f"{flag.names[0]} ({flag.theirs} -> {flag.ours})")
        elif not flag.is_hidden:
            new.append((flag, own or flag.meaning))
    if unexplained:
        raise SystemExit(f"{FACTS.name} does not say why {name} changed {', '.join(unexplained)}")
    text = f"\n### {name} (`{facts['script']}.py`)\n\n"
    if kept:
        text += f"As they were, with their defaults: {', '.join(kept)}.\n"
    return text + "\n" + HEADER + "".join(rows(differing) + rows(new))


def rows(flags: list[tuple[Flag, str]]) -> list[str]:
    """Return the lines of a table; neighbors of one reason share a line."""
    lines = []
    for why, together in itertools.groupby(flags, key=lambda item: item[1]):
        cells = [flag.cells() for flag, _ in together]
        columns = [list(column) for column in zip(*cells, strict=True)]
        columns = [column[:1] if len(set(column)) == 1 else column for column in columns]
        texts = [*("; ".join(column) for column in columns), why]
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |\n")
    return lines


def page(text: str) -> str:
    """Return the page with the tables in it."""
    facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    shared = facts.pop("shared")
    tables = [section(name, about, shared) for name, about in facts.items()]
    return between(text, "flags", COMMAND, "".join(tables) + "\n")


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "pipeline.md", f"python {COMMAND}", page))
