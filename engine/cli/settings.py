"""``cultivar presets`` and ``cultivar settings``: what a run can be told."""

from __future__ import annotations

import difflib
import itertools

import click
from rich.console import Console
from rich.text import Text

from engine.config_file import preset_names, presets_folder
from engine.errors import ConfigError
from engine.setting_list import REQUIRED, Setting, describe_settings

INDENT = 4

PRESETS_EPILOG = """\b
Examples:
  cultivar evolve smoke
  cultivar evolve cartpole --set evolution.generations=20
"""
SETTINGS_EPILOG = """\b
Examples:
  cultivar settings elites
  cultivar settings teachers.training
"""


@click.command(epilog=PRESETS_EPILOG)
def presets() -> None:
    """List the configurations that come with cultivar, and the command that runs each."""
    names = preset_names()
    width = max(map(len, names))
    console = Console(highlight=False)
    for name in names:
        about, command = _describe(name)
        line = Text.assemble((f"{name:<{width}}", "bold"), "  ", about)
        line.append(f"\n{command}", style="dim")
        _print(console, line, width + 2)


@click.command(epilog=SETTINGS_EPILOG)
@click.argument("pattern", required=False)
def settings(pattern: str | None) -> None:
    """List all settings with default and meaning, or those that PATTERN is a part of."""
    found = [one for one in describe_settings() if _fits(one, pattern)]
    if not found:
        raise ConfigError(_nothing_found(str(pattern)))
    console = Console(highlight=False)
    for one in found:
        _print(console, _setting(one), INDENT)


def _describe(preset: str) -> tuple[str, str]:
    """Return the first sentence of a preset's comments and its command, which is line 1."""
    text = (presets_folder() / f"{preset}.yaml").read_text(encoding="utf-8")
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    command, *comments = [line.lstrip("# ").rstrip() for line in lines]
    ends = (i for i, comment in enumerate(comments) if comment.endswith("."))
    return " ".join(comments[: next(ends, len(comments)) + 1]), command


def _setting(one: Setting) -> Text:
    line = Text(one.name, style="bold")
    if one.default == REQUIRED:
        line.append("  (required)", style="not bold")
    elif one.default:
        line.append(f" = {one.default}", style="not bold")
    meaning = one.meaning.replace("``", "'")  # from docstrings
    return line.append(f"\n{meaning}", style="not bold")


def _fits(one: Setting, pattern: str | None) -> bool:
    return pattern is None or pattern.lower() in f"{one.name}\n{one.meaning}".lower()


def _nothing_found(pattern: str) -> str:
    names = [one.name for one in describe_settings()]
    last = {name.rpartition(".")[2]: name for name in reversed(names)}
    near = [
        *difflib.get_close_matches(pattern, names, 1),
        *(last[part] for part in difflib.get_close_matches(pattern, last, 1)),
    ]
    guess = f"Did you mean {near[0]}?" if near else "'cultivar settings' lists them all"
    return f"no setting has {pattern!r} in its name or meaning. {guess}"


def _print(console: Console, text: Text, indent: int) -> None:
    """Print text with all lines but the first one indented, wrapped to the console."""
    lines = [
        part
        for line in text.split("\n")
        for part in line.wrap(console, max(console.width - indent, 20))
    ]
    for i, line in enumerate(lines):
        line.rstrip()
        console.print(Text(" " * indent if i else "") + line, soft_wrap=True)
