"""Damaged and hostile files: nothing but an error of ours in one readable text, for any reader.

``scripts/fuzz_readers.py`` does the same with thousands of files, and limits memory and time.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fuzzing.fixed import fixed_by_reader, marked_tests
from fuzzing.readers import Reader, readers
from fuzzing.trial import try_file

torch.set_num_threads(1)

SEED = 2
SMALL_BOMB = 2**20
READERS = readers(SMALL_BOMB)
FILES, FILES_OF_SLOW_ONES = 200, 30
"""Mutants for each reader."""


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_good_files_are_read(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reader.samples()
    for good in reader.samples():
        path = reader.prepare(tmp_path)
        path.write_bytes(good)
        assert try_file(reader.read, path) == ("accepted", "")


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_a_damaged_file_is_refused_in_a_sentence(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a file whose code runs leaves a trace
    n_rejected = 0
    for number in range(FILES_OF_SLOW_ONES if reader.is_slow else FILES):
        path = reader.prepare(tmp_path)
        path.write_bytes(reader.mutant(SEED, number))
        outcome, why = try_file(reader.read, path)
        assert outcome != "crash", f"{reader.name}, seed {SEED}, file {number}: {why}"
        n_rejected += outcome == "rejected"
    assert n_rejected > 0


def test_the_defects_that_are_counted_are_those_of_readers() -> None:
    tests = dict(marked_tests())
    assert tests["test_a_pack_of_very_many_architectures_is_read_in_linear_time"] == [
        "pack of genomes"
    ]
    assert fixed_by_reader()["journal"] >= 3
    assert set(fixed_by_reader()) <= {reader.name for reader in READERS}
