from __future__ import annotations

import pytest

from populations.reasons import LONGEST, shortened, told


class SilentError(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("as it is", "as it is"),
        ("  two\n\tlines\r\n\n and  spaces ", "two lines and spaces"),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * (LONGEST + 1), "x" * (LONGEST - 3) + "..."),
        ("y " * 3_000_000, ("y " * LONGEST)[: LONGEST - 3] + "..."),
        ("", ""),
    ],
)
def test_a_reason_is_one_line_of_bounded_length(text: str, expected: str) -> None:
    assert shortened(text) == expected


def test_an_error_is_told_with_its_class() -> None:
    assert told(ValueError("boom\nand more")) == "ValueError: boom and more"
    assert told(SilentError()) == "SilentError"
    assert len(told(KeyError("x" * 3_000_000))) == LONGEST
