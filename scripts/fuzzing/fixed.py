"""Defects that fuzzing found and that were mended, counted by the tests that keep them mended.

Each of these tests is marked with the readers that it was about:
``@pytest.mark.found_in("genome", "pack of genomes")``.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests" / "fuzz"
MARK = "found_in"


def fixed_by_reader() -> Counter[str]:
    """Return the number of tests for each reader; one about two readers counts for both."""
    return Counter(reader for _, readers in marked_tests() for reader in readers)


def marked_tests() -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each test for a defect, with its readers."""
    for file in sorted(TESTS.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and _name(decorator.func) == MARK:
                        yield node.name, list(_texts(decorator.args))


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        value = ast.literal_eval(node.value if isinstance(node, ast.Starred) else node)
        yield from value if isinstance(value, tuple) else (value,)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""
