from __future__ import annotations

from typing import Any

import pytest

from engine.formatting import rounded


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.06837292228616075, 0.06837),
        (1 / 3, 0.3333),
        (1234.56, 1235.0),
        (123456.7, 123457),
        (2e-9 / 3, 6.667e-10),
        (123456789, 123456789),
        (True, True),
        ("0.123456", "0.123456"),
        (float("inf"), float("inf")),
        ({"name": "gaussian", "size": [1 / 3, None]}, {"name": "gaussian", "size": [0.3333, None]}),
    ],
)
def test_arguments_are_shown_with_four_digits(value: Any, shown: Any) -> None:
    assert rounded(value) == shown
    assert type(rounded(value)) is type(shown)
