"""Operators as text: the list, one page each, and what became of their checks."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

from engine.operator_list import BUILT_IN, VARIES, OperatorFacts, ParameterFacts
from strategies.testing.report import Outcome

GAP = "  "
INDENT = "  "
LABEL = 12  # characters of the widest label of a page
MARK = len("FAILED") + len(GAP)
_ITEM = re.compile(r"(- |\d+\. )")


def print_list(console: Console, operators: Sequence[OperatorFacts]) -> None:
    """Print two lines each: name, parents, needs and parameters, and below what it does."""
    for i, (kind, group) in enumerate(groupby(operators, key=lambda one: one.kind)):
        if i:
            console.print()
        _print_kind(console, kind, list(group))


def _print_kind(console: Console, kind: str, operators: Sequence[OperatorFacts]) -> None:
    rows = [(one.name, _parents(one), ", ".join(one.needs)) for one in operators]
    heads = (kind.upper(), "PARENTS", "NEEDS")
    used = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    widths = {i: max(len(cell) for cell in (heads[i], *(row[i] for row in rows))) for i in used}
    _line(console, Text(_cells([heads[i] for i in used], widths) + "PARAMETERS", "dim"))
    for one, row in zip(operators, rows, strict=True):
        left = _cells([row[i] for i in used], widths)
        parameters = [each.text for each in one.parameters]
        wrapped = _wrap_words(parameters, console.width - len(left)) or [""]
        text = Text(left + wrapped[0])
        text.stylize("bold", 0, len(one.name))
        _line(console, text)
        for more in wrapped[1:]:
            _line(console, Text(" " * len(left) + more))
        about = one.summary or "(without a docstring)"
        if one.origin != BUILT_IN:
            about += f" [{_short(one.origin)}]"
        for part in _wrap(about, console.width, INDENT):
            _line(console, Text(part, "dim"))


def _parents(one: OperatorFacts) -> str:
    """Return how many parents there are, with a ``+`` where an argument sets that."""
    if one.n_parents is None:
        return ""
    return f"{one.n_parents}{'+' if one.any_number and one.n_parents != VARIES else ''}"


def print_page(console: Console, one: OperatorFacts) -> None:
    """Print all that is known of one operator."""
    width = min(console.width, 100)
    _line(console, Text.assemble((one.name, "bold"), f"{GAP}{one.kind}, {_short(one.origin)}"))
    for part in _wrap(one.summary or "(without a docstring)", width):
        _line(console, Text(part))
    if one.explanation:
        for part in _reflow(one.explanation, width):
            _line(console, Text(part))
    console.print()
    for label, value in _labelled(one):
        for i, part in enumerate(_wrap(value, width - LABEL)):
            _line(console, Text(f"{'' if i else label:<{LABEL}}{part}"))
    if one.parameters:
        console.print()
        _line(console, Text("parameters"))
    for parameter in one.parameters:
        _print_parameter(console, parameter, width)
    console.print()
    for line in _use(one):
        _line(console, Text(line, "dim"))


def _labelled(one: OperatorFacts) -> Iterator[tuple[str, str]]:
    if one.n_parents is not None:
        other = ", another number with n_parents" if one.any_number else ""
        other = " with its parameters" if one.n_parents == VARIES else other
        widths = "" if one.same_widths else "; their hidden layers may differ in width"
        yield "parents", f"{one.n_parents}{other}{widths}"
    if one.kind != "selection":
        yield "needs", ", ".join(one.needs) or "weights only"
    if one.idempotent is False:
        yield "note", "equal parents need not give themselves back"
    if one.step_size is not None:
        yield "step size", f"{one.step_size}, which evolution.mutation.adapt lets evolve"
    if one.source:
        yield "source", one.source
    yield "class", _short(one.target)
    if one.file and one.file != one.origin:
        yield "file", one.file


def _print_parameter(console: Console, one: ParameterFacts, width: int) -> None:
    kind = f" ({one.type})" if one.type else ""
    _line(console, Text.assemble(f"{GAP}", (one.text, "bold"), kind))
    for part in _wrap(one.meaning, width, 3 * GAP):
        _line(console, Text(part))


def _use(one: OperatorFacts) -> Iterator[str]:
    """Yield how it is asked for and checked."""
    is_file = one.origin == one.file != ""
    params = "".join(f", {each.name}: ..." for each in one.parameters if each.required)[2:]
    given = f"{{name: {one.name}{f', params: {{{params}}}' if params else ''}}}"
    yield {
        "crossover": f"use it    evolution.recipes: [{given.replace('name:', 'operator:')}]",
        "mutation": f"use it    evolution.mutation: {given}",
        "selection": f"use it    evolution.selection: {given}",
    }[one.kind] + (f", plugins: [{_short(one.file)}]" if is_file else "")
    yield f"check it  cultivar operators check {_short(one.target) if is_file else one.name}"


def print_outcomes(console: Console, title: str, outcomes: Sequence[Outcome]) -> None:
    """Print what became of each check; what failed stands at the end, with how to mend it."""
    _line(console, Text(title, "bold"))
    width = max(len(outcome.check) for outcome in outcomes)
    asked = [outcome for outcome in outcomes if not outcome.skipped]
    failed = [outcome for outcome in asked if outcome.failed]
    for one in asked:
        if not one.failed:
            _print_asked(console, Text("ok", "green"), one, one.asks, width)
    _print_not_asked(console, [outcome for outcome in outcomes if outcome.skipped])
    for one in failed:
        _print_asked(console, Text("FAILED", "bold red"), one, f"it {one.problem}", width)
    verdict = f"all {len(asked)} checks passed"
    if failed:
        others = len(outcomes) - len(asked)
        verdict = f"{len(failed)} of {len(asked)} checks failed"
        verdict += f", {others} not asked" if others else ""
    _line(console, Text(verdict, "bold"))


def _print_asked(console: Console, mark: Text, one: Outcome, told: str, width: int) -> None:
    margin = MARK + width + len(GAP)
    lines = _wrap(told, console.width - margin)
    if one.mend:
        lines += _wrap(f"to mend: {one.mend}", console.width - margin)
    mark.pad_right(MARK - len(mark))
    for i, line in enumerate(lines):
        head = Text.assemble(mark, f"{one.check:<{width}}{GAP}") if i == 0 else Text(" " * margin)
        _line(console, head + Text(line))


def _print_not_asked(console: Console, skipped: Sequence[Outcome]) -> None:
    """Print the checks that were not asked, those of one reason together."""
    for reason in dict.fromkeys(outcome.skipped for outcome in skipped):
        names = ", ".join(outcome.check for outcome in skipped if outcome.skipped == reason)
        lines = _wrap(f"not asked: {names} ({reason})", console.width - MARK)
        for i, line in enumerate(lines):
            _line(console, Text(f"{'' if i else '-':<{MARK}}{line}", "dim"))


def _cells(cells: Sequence[str], widths: dict[int, int]) -> str:
    pairs = zip(cells, widths.values(), strict=True)
    return "".join(f"{cell:<{width}}{GAP}" for cell, width in pairs)


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        max(width, 30),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _wrap_words(words: Sequence[str], width: int) -> list[str]:
    """Return words in lines; no word is broken, whatever stands in it."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _reflow(text: str, width: int) -> Iterator[str]:
    """Yield the lines of paragraphs and lists in another width; indented blocks are left alone."""
    for paragraph in text.split("\n\n"):
        yield ""
        if paragraph.startswith("    "):
            yield from paragraph.splitlines()
        else:
            for item in re.split(r"\n(?=- |\d+\. )", paragraph):
                match = _ITEM.match(item)
                hanging = " " * len(match[1]) if match else ""
                body = " ".join(item.split())
                yield from textwrap.wrap(
                    body,
                    width,
                    subsequent_indent=hanging,
                    break_long_words=False,
                    break_on_hyphens=False,
                )


def _short(origin: str) -> str:
    """Return a path relative to here, if it is below."""
    path = Path(origin)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else origin


def _line(console: Console, text: Text) -> None:
    text.rstrip()
    console.print(text, soft_wrap=True)
