"""Write the catalogue in docs/operators.md from the built-in operators, or check it.

python scripts/document_operators.py --check
"""

from __future__ import annotations

import re
import sys

from pages import DOCS, between, write_or_check

from engine.operator_list import BUILT_IN, KINDS, OperatorFacts, list_operators

COMMAND = "scripts/document_operators.py"
SENTENCE_END = re.compile(r"(?<=[\w)\"'])\. (?=[A-Z])")  # not that of "et al. 2022"


def catalogue() -> str:
    """Return a table per kind of operator."""
    return "".join(f"\n### {kind.title()}s\n\n{table(kind)}" for kind in KINDS)


def table(kind: str) -> str:
    """Return the table of the built-in operators of one kind."""
    # Whoever writes the page may have plug-ins installed.
    rows = [cells(facts) for facts in list_operators(kind)[0] if facts.origin == BUILT_IN]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def cells(facts: OperatorFacts) -> dict[str, str]:
    """Return what the table says of one operator, by column."""
    needs = [f"`{need}`" for need in facts.needs]
    if facts.kind == "crossover" and not facts.same_widths:
        needs.append("widths may differ")
    n_parents = "" if facts.n_parents is None else str(facts.n_parents)
    return {
        "Name": f"`{facts.name}`",
        "What it does": facts.summary,
        "Parents": "2 or more" if facts.any_number else n_parents,
        "Needs": ", ".join(needs),
        "Parameters": ", ".join(f"`{each.text}`" for each in facts.parameters),
        # What follows the first sentence is how we differ.
        "Source": SENTENCE_END.split(facts.source)[0].removesuffix("."),
    }


def page(text: str) -> str:
    """Return the page with the catalogue in it."""
    return between(text, "catalogue", COMMAND, catalogue() + "\n")


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "operators.md", f"python {COMMAND}", page))
