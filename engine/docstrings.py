"""Docstrings as data: summary, explanation, source, and what each argument means."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

_SECTION = re.compile(r"(Args|Arguments|Attributes|Example|Examples|Note|Raises|Returns|Yields):$")
_ARGUMENT = re.compile(r"    (\w+)(?: \([^)]*\))?:\s*(.*)")
_ROLE = re.compile(r":\w+:`~?([^`]+)`")


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring in Google style, taken apart and without markup.

    Attributes:
        summary: Its first paragraph, on one line; empty where there is no docstring.
        explanation: The paragraphs behind that, with their line breaks.
        source: What follows ``Source:``, on one line; empty where there is none.
        arguments: Meaning of each argument by name, each on one line.
    """

    summary: str
    explanation: str
    source: str
    arguments: dict[str, str]


def read_docstring(cls: type[object]) -> Docstring:
    """Return the docstring of a class; without one of its own, everything is empty."""
    text = plain(inspect.cleandoc(cls.__dict__.get("__doc__") or ""))
    body: list[str] = []
    sections: dict[str, list[str]] = {}
    lines = body
    for line in text.splitlines():
        if _SECTION.match(line):
            lines = sections.setdefault(line[:-1], [])
        else:
            lines.append(line)
    paragraphs = re.split(r"\n\s*\n", "\n".join(body).strip())
    sources = [one for one in paragraphs[1:] if one.startswith("Source:")]
    explanation = [one for one in paragraphs[1:] if one not in sources]
    return Docstring(
        summary=_one_line(paragraphs[0]),
        explanation="\n\n".join(explanation),
        source=_one_line(" ".join(sources)).removeprefix("Source: "),
        arguments=_arguments(sections.get("Args", sections.get("Arguments", []))),
    )


def plain(text: str) -> str:
    """Return text without the markup of reStructuredText: no roles, no double backquotes."""
    text = _ROLE.sub(lambda match: match[1].rpartition(".")[2], text)
    return re.sub(r"::$", ":", text.replace("``", ""), flags=re.MULTILINE)


def _arguments(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        match = _ARGUMENT.fullmatch(line)
        if match is not None:
            name, found[match[1]] = match[1], match[2]
        elif name:
            found[name] += f" {line.strip()}"
    return {name: _one_line(meaning) for name, meaning in found.items()}


def _one_line(text: str) -> str:
    return " ".join(text.split())
