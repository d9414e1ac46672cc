"""Whatever a file holds, a reader accepts it or refuses it in a sentence; hypothesis looks on.

    CULTIVAR_FUZZ_EXAMPLES=5000 pytest tests/fuzz/test_properties.py

gives every reader so many files, other ones each time. Of those that do harm hypothesis prints a
smallest one, and leaves it in the folder of the test.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from fuzzing.drawn import OTHER_VALUES, damaged_files
from fuzzing.readers import Reader, readers
from fuzzing.trial import try_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from populations.errors import CultivarError

torch.set_num_threads(1)

READERS = readers(2**20)
ASKED = os.environ.get("CULTIVAR_FUZZ_EXAMPLES")
EXAMPLES, EXAMPLES_OF_SLOW_ONES = 40, 10
"""Files for each reader, the same ones each time, unless more are asked for."""


def check(reader: Reader, folder: Path, files: st.SearchStrategy[bytes], examples: int) -> None:
    """Let a reader read files; the last one is a smallest one that does harm, if any does."""

    @settings(
        max_examples=examples,
        derandomize=ASKED is None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(content=files)
    def is_read_or_refused(content: bytes) -> None:
        path = reader.prepare(folder)
        path.write_bytes(content)
        outcome, why = try_file(reader.read, path)
        assert outcome != "crash", f"{reader.name}, see {path}: {why}"

    is_read_or_refused()


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_every_file_is_read_or_refused_in_a_sentence(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usual = EXAMPLES_OF_SLOW_ONES if reader.is_slow else EXAMPLES
    check(reader, tmp_path, damaged_files(reader), int(ASKED or usual))


def test_values_of_json_yaml_and_tables_are_replaced() -> None:
    suffixes = {Path(reader.file).suffix for reader in READERS}
    assert set(OTHER_VALUES) <= suffixes


def _brittle(path: Path) -> None:
    content = path.read_bytes()
    if b"!" in content[1:]:
        raise ZeroDivisionError("the planted fault")
    if content != b"a good file":
        raise CultivarError("expected a good file")


def test_a_file_that_does_harm_is_made_small(tmp_path: Path) -> None:
    reader = Reader("brittle", "brittle", lambda: [b"a good file!"], _brittle)
    with pytest.raises(AssertionError, match="ZeroDivisionError: 'the planted fault'"):
        check(reader, tmp_path, damaged_files(reader), 200)
    smallest = (tmp_path / "brittle").read_bytes()
    assert len(smallest) == 2
    assert smallest.endswith(b"!")
