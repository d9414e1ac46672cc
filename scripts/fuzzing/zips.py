"""Archives as no honest program writes them: zipfile refuses to lie about sizes and methods."""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

STORED, DEFLATED = 0, 8


@dataclass(frozen=True)
class Member:
    """One file of an archive, with whatever is claimed of it."""

    name: str
    payload: bytes  # as it lies in the archive
    size: int  # claimed, of what comes out
    crc: int
    method: int = STORED
    flags: int = 0


def plain(name: str, content: bytes) -> Member:
    """Return an honest, uncompressed member."""
    return Member(name, content, len(content), zlib.crc32(content))


def deflated(name: str, content: bytes) -> Member:
    """Return an honest, compressed member."""
    return Member(name, _deflate(content), len(content), zlib.crc32(content), DEFLATED)


def bomb(name: str, n_bytes: int) -> Member:
    """Return a member of a KB per MB of zeros that it becomes."""
    payload, crc = _zeros(n_bytes)
    return Member(name, payload, n_bytes, crc, DEFLATED)


def members(archive: bytes) -> list[Member]:
    """Return the members of an honest archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return [plain(name, file.read(name)) for name in file.namelist()]


def pack(entries: Sequence[Member]) -> bytes:
    """Return an archive that makes the claims of its members."""
    body = bytearray()
    directory = bytearray()
    for entry in entries:
        name = entry.name.encode("utf-8", "surrogateescape")
        compressed = min(len(entry.payload), 2**32 - 1)
        common = struct.pack(
            "<HHHHHIIIHH",
            *(20, entry.flags, entry.method, 0, 33, entry.crc, compressed),
            *(min(entry.size, 2**32 - 1), len(name), 0),
        )
        directory += b"PK\1\2" + struct.pack("<H", 20) + common
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        body += b"PK\3\4" + common + name + entry.payload
    end = struct.pack("<HHHHIIH", 0, 0, *[len(entries)] * 2, len(directory), len(body), 0)
    return bytes(body + directory) + b"PK\5\6" + end


def _deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(6, wbits=-15)
    return packer.compress(content) + packer.flush()


@functools.cache
def _zeros(n_bytes: int) -> tuple[bytes, int]:
    packer = zlib.compressobj(1, wbits=-15)
    payload, crc = b"", 0
    chunk = bytes(2**20)
    for start in range(0, n_bytes, len(chunk)):
        part = chunk[: n_bytes - start]
        payload += packer.compress(part)
        crc = zlib.crc32(part, crc)
    return payload + packer.flush(), crc
