"""Pipes, sockets, devices and oversized files, in place of any file that is read."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from populations.regular_files import is_regular, only_regular, read_regular, sha256_of


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a name short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def special(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    return path


@pytest.mark.parametrize("kind", ["named pipe", "socket", "device"])
def test_what_is_no_file_is_refused_at_once(folder: Path, kind: str) -> None:
    path = special(folder, kind)
    assert not is_regular(path)
    for read in (lambda: read_regular(path, 10), lambda: sha256_of(path)):
        with pytest.raises(OSError, match=f"it is a {kind}, not a file"):
            read()
    with pytest.raises(OSError, match=r"not a file|No such device"):
        open(path, "a+", opener=only_regular)  # noqa: SIM115  # it is not opened


def test_of_a_pipe_it_is_said_what_to_do(folder: Path) -> None:
    with pytest.raises(OSError, match="write what comes out of it to a file first"):
        read_regular(special(folder, "named pipe"), 10)


def test_a_folder_is_none_either(folder: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_regular(folder, 10)
    assert not is_regular(folder)


def test_a_file_is_read_whole_up_to_its_limit(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"0123456789")
    assert read_regular(path, 10) == b"0123456789"
    assert sha256_of(path) == hashlib.sha256(b"0123456789").hexdigest()
    assert is_regular(path)
    with pytest.raises(OSError, match="it has 10 bytes, more than 9"):
        read_regular(path, 9)


def test_a_file_of_a_terabyte_of_nothing_takes_no_memory(folder: Path) -> None:
    path = folder / "file"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="more than 1,000"):
        read_regular(path, 1000)
    with pytest.raises(OSError, match="more than 8,589,934,592"):
        sha256_of(path)
    assert not is_regular(path)


def test_a_path_that_no_file_can_have_is_one_of_none(folder: Path) -> None:
    assert not is_regular(folder / ("x" * 300))
    assert not is_regular(folder / "a\0b")
