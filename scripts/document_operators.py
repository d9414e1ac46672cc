"""Write the catalogue in docs/operators.md from the registered operators, or check it.

python scripts/document_operators.py --check
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from strategies import Registry, crossovers, mutations, selections

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"
BEGIN = "<!-- catalogue: written by scripts/document_operators.py -->\n"
END = "<!-- catalogue: end -->\n"
TITLES = ("Crossovers", "Mutations", "Selections")
SENTENCE_END = re.compile(r"(?<=[\w)\"'`])\. (?=[A-Z])")  # not that of "et al. 2022"
SOURCE = re.compile(r"^Sources?:\s*(?P<text>.*?)(?:\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


def catalogue() -> str:
    """Return a table per kind of operator."""
    registries: tuple[Registry[Any], ...] = (crossovers, mutations, selections)
    return "".join(
        f"\n### {title}\n\n{table(registry)}"
        for title, registry in zip(TITLES, registries, strict=True)
    )


def table(registry: Registry[Any]) -> str:
    """Return the table of the built-in operators of one kind."""
    classes = [registry.get(name) for name in registry.available()]
    # Whoever writes the page may have plug-ins installed.
    built_in = [cls for cls in classes if cls.__module__.startswith("strategies.")]
    rows = [
        {
            "Name": f"`{cls.name}`",
            "What it does": summary(cls),
            "Parents": parents(cls),
            "Needs": needs(cls),
            "Parameters": parameters(cls),
            "Source": source(cls),
        }
        for cls in built_in
    ]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def summary(cls: type[Any]) -> str:
    """Return the first sentence of the docstring."""
    return plain(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0])


def parents(cls: type[Any]) -> str:
    """Return how many parents a crossover takes."""
    if "n_parents" in inspect.signature(cls).parameters:
        return "2 or more"
    return str(getattr(cls, "n_parents", ""))


def needs(cls: type[Any]) -> str:
    """Return what it reads besides weights."""
    told = [f"`{need}`" for need in getattr(cls, "needs", ())]
    told += [] if getattr(cls, "same_widths", True) else ["widths may differ"]
    return ", ".join(told)


def parameters(cls: type[Any]) -> str:
    """Return the constructor arguments with their defaults."""
    found = inspect.signature(cls).parameters.values()
    told = [
        each.name if each.default is each.empty else f"{each.name}={each.default!r}"
        for each in found
    ]
    return ", ".join(f"`{each}`" for each in told)


def source(cls: type[Any]) -> str:
    """Return where it comes from, as its docstring says; a control comes from nowhere.

    What follows the first sentence is how we differ.
    """
    found = SOURCE.search(inspect.cleandoc(cls.__doc__ or ""))
    return "" if found is None else SENTENCE_END.split(plain(found["text"]))[0].removesuffix(".")


def plain(text: str) -> str:
    """Return text of a docstring as one line of Markdown."""
    linked = re.sub(r":(?:class|meth|func|attr):`~?([^`]+)`", r"`\1`", " ".join(text.split()))
    return linked.replace("``", "`")


def page(text: str) -> str:
    """Return the page with the catalogue in it.

    Raises:
        SystemExit: The page has no place for it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE.name} needs the lines {BEGIN.strip()} and {END.strip()}")
    return before + begin + catalogue() + "\n" + end + after


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    is_check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if is_check and new != old:
        print(f"{PAGE.name} is out of date: run python scripts/document_operators.py")
        return 1
    if not is_check:
        PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
