"""The table of recipes as a file."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RunDirectoryError
from engine.recipe_table import NAMES, RecipeRow, read_table, table_bytes
from populations.population import LARGEST_RETURN

NUMBERS = st.floats(-LARGEST_RETURN, LARGEST_RETURN)
ROWS = st.builds(
    RecipeRow,
    recipe=st.integers(0, 999),
    operator=st.from_regex(r"\A[a-z][a-z0-9_]*\Z"),
    operator_params=st.dictionaries(st.text(max_size=5), st.none() | NUMBERS | st.text()),
    align=st.sampled_from(["none", "weights", "activations", "auto"]),
    finetune=st.sampled_from(["default", "short"]),
    rescale=st.booleans(),
    weight=NUMBERS,
    births=st.integers(0, 10**9),
    ok=st.integers(0, 10**9),
    mean_improvement=st.none() | NUMBERS,
    best_improvement=st.none() | NUMBERS,
    mean_reward=st.none() | NUMBERS,
    alpha=st.none() | NUMBERS,
    beta=st.none() | NUMBERS,
    expected_reward=st.none() | NUMBERS,
    share=NUMBERS,
)
ROW = RecipeRow(
    *(2, "weighted", {"low": 0.1, "high": 0.9}, "auto", "short", True, 0.25, 3, 2),
    *(-0.5, 1.0, 0.25, None, None, None, 0.125),
)


@given(st.lists(ROWS, max_size=4))
def test_a_table_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[RecipeRow]
) -> None:
    path = tmp_path_factory.getbasetemp() / "recipes.csv"
    path.write_bytes(table_bytes(rows))
    assert read_table(path) == rows


def test_a_row_is_a_line_with_a_cell_for_each_column() -> None:
    header, line = table_bytes([ROW]).decode().splitlines()
    cells = dict(zip(header.split(","), next(csv.reader([line])), strict=True))
    assert tuple(cells) == NAMES
    assert list(cells.values()) == [
        *("2", "weighted", '{"high":0.9,"low":0.1}', "auto", "short", "1", "0.25", "3", "2"),
        *("-0.5", "1.0", "0.25", "", "", "", "0.125"),
    ]


def test_a_run_without_a_table_has_no_recipes(tmp_path: Path) -> None:
    assert read_table(tmp_path / "recipes.csv") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"share", b"shore"),
        (b"0.125", b"much"),
        (b",3,2,", b",3,2"),
        (b'"{', b'"'),
        (b"a", b"\xff"),
    ],
)
def test_a_damaged_table_is_told(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "recipes.csv"
    assert old in table_bytes([ROW])
    path.write_bytes(table_bytes([ROW]).replace(old, new))
    with pytest.raises(RunDirectoryError, match=r"recipes\.csv is damaged; delete it, and 'cult"):
        read_table(path)
