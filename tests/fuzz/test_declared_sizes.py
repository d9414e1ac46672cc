"""Small files that claim to be large: no reader takes memory for what is not there."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import samples, zips
from fuzzing.mutations import resealed

from engine.config_file import load_config
from engine.learning.checkpoints import read_checkpoint
from engine.learning.states import load_states
from engine.preparation import _reread
from engine.recipe_table import read_table
from populations import journal
from populations.errors import CultivarError, JournalError
from populations.journal import Journal, read_journal
from populations.leaderboard import load_leaderboard
from populations.storage import load_genome

MOST_BYTES = 64 * 2**20


def npy(shape: str, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n" % shape.encode()
    width = 2 if version == b"\1\0" else 4
    return b"\x93NUMPY" + version + (length or len(text)).to_bytes(width, "little") + text


def overlapping() -> bytes:
    """Return an archive of a thousand members that all claim the same compressed zeros."""
    bomb = zips.bomb("states.npy", 2**24)
    return zips.pack([bomb, *(zips.Member(f"{i}", b"", 2**24, bomb.crc, 8) for i in range(1000))])


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return (length or len(header)).to_bytes(8, "little") + header


CLAIMS: list[tuple[str, bytes, Callable[[Path], object]]] = [
    ("g.safetensors", safetensors(b"{}", 2**63), load_genome),
    ("h.safetensors", safetensors(b'{"x":{"dtype":"F32","shape":[1099511627776],'
                                  b'"data_offsets":[0,4398046511104]}}'), load_genome),
    ("a.npy", npy("(1000000000000, 4)"), lambda path: load_states(path, 4)),
    ("b.npy", npy("(64, 4)", b"\2\0", 2**32 - 1), lambda path: load_states(path, 4)),
    ("c.npy", npy("(64, 4)", b"\3\0", 2**31), lambda path: load_states(path, 4)),
    ("d.npz", zips.pack([zips.Member("states.npy", b"x", 2**32 - 1, 0)]), lambda p: _reread(p, 4)),
    ("e.npz", overlapping(), lambda path: _reread(path, 4)),
    ("f.npz", zips.pack([zips.deflated("states.npy", npy("(10000000000, 4)"))]),
     lambda path: _reread(path, 4)),
    ("g.pt", zips.pack([zips.bomb("x/data.pkl", 2**24), zips.plain("x/version", b"3\n")]),
     read_checkpoint),
    ("h.yaml", b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c]\n" % (n, n, *[n - 1] * 6) for n in b"bcdefghij"
    ), load_config),
    ("i.csv", b'schema_version,"' + b"x\n" * 500_000, lambda path: load_leaderboard([path])),
    ("recipes.csv", b'generation,"' + b"x\n" * 500_000, read_table),
]  # fmt: skip


@pytest.mark.found_in("states, .npy")
@pytest.mark.parametrize(("name", "content", "read"), CLAIMS, ids=[name for name, *_ in CLAIMS])
def test_a_claim_takes_no_memory(tmp_path: Path, name: str, content: bytes, read) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CultivarError):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES


@pytest.mark.found_in("journal")
def test_a_line_of_a_journal_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LONGEST_LINE", 100)
    path = tmp_path / "j"
    path.write_bytes(resealed([b'{"x":"%s"}' % (b"x" * 200)]))
    with pytest.raises(JournalError, match=r"line 2: it has 100 bytes or more"):
        list(read_journal(path))
    with (
        Journal.create(tmp_path / "new") as opened,
        pytest.raises(JournalError, match="a journal holds events of less than 100"),
    ):
        opened.append([{"x": "x" * 200}])
    assert list(read_journal(tmp_path / "new")) == []


def test_what_is_claimed_honestly_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    path.write_bytes(samples.run_states()[0])
    assert _reread(path, 4).shape == (64, 4)
