"""One safetensors file: written whole or not at all, and trusted only after a checksum.

safetensors has no checksum and orders several metadata keys at random. So our files have exactly
one metadata key, ``cultivar``, that holds canonical JSON: the format version, what the file is, its
own fields, and a SHA-256 over those and all tensors. Equal content gives equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from populations.durable import make_folder, put_in_place
from populations.errors import GenomeFileError
from populations.regular_files import StrPath, no_link, only_regular, size_of

FORMAT = 1
METADATA_KEY = "cultivar"
LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON header, little-endian
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}

Tensors = dict[str, NDArray[Any]]


def canonical_json(values: Any) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_atomically(path: StrPath, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The new one outlasts a power failure once this returns.

    Args:
        path: Where to write; missing folders are made.
        content: The whole file.

    Raises:
        OSError: The folder is not writable or the disk is full; the old file is left as it was. It
            names ``path``.
    """
    target = Path(path)
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=no_link) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, target)
    except OSError as error:
        # Writing names no file, and a user does not know the temporary one.
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        with contextlib.suppress(OSError):  # a disk that is read-only does not even look
            temporary.unlink(missing_ok=True)


def read_tensors(path: StrPath) -> tuple[Tensors, dict[str, str]]:
    """Read any safetensors file, ours or not.

    Nothing is allocated before the sizes that the file declares are compared with its real size.
    bfloat16, which NumPy lacks, is widened to float32.

    Args:
        path: The file.

    Returns:
        New arrays by name, and the metadata.

    Raises:
        GenomeFileError: It is missing, truncated, not safetensors, or of a dtype unknown here.
    """
    try:
        with open(path, "rb", opener=only_regular) as file:
            size = size_of(file)
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if LENGTH_BYTES + length > size:
                raise GenomeFileError(
                    f"{path}: expected a safetensors header of {length} bytes, but the file has "
                    f"{size} bytes in all: it is truncated or not a safetensors file"
                )
            file.seek(0)
            raw = file.read(size)
    except FileNotFoundError as error:
        raise GenomeFileError(f"{path}: expected a safetensors file, but it is missing") from error
    except OSError as error:
        raise GenomeFileError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        views = deserialize(raw)  # type: ignore[no-untyped-call]  # its stub has no types
    except SafetensorError as error:
        raise GenomeFileError(
            f"{path}: expected a safetensors file, but the {size} bytes are truncated or damaged "
            f"({error})"
        ) from error
    try:
        header = json.loads(raw[LENGTH_BYTES : LENGTH_BYTES + length])
        tensors = {name: _to_array(path, name, view) for name, view in views}
    # Shapes with a zero fit any size, and numbers may have more digits than Python takes.
    except (RecursionError, ValueError) as error:
        raise GenomeFileError(
            f"{path}: expected a safetensors file, but its header is damaged ({error})"
        ) from error
    return tensors, header.get("__metadata__") or {}


def _to_array(path: StrPath, name: str, view: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape, data = view["dtype"], view["shape"], view["data"]
    if dtype == "BF16":  # the upper half of a float32
        halves = np.frombuffer(data, "<u2").astype(np.uint32)
        return (halves << np.uint32(16)).view(np.float32).reshape(shape)
    if dtype not in DTYPES:
        raise GenomeFileError(
            f"{path}: {name} must be one of {', '.join(DTYPES)} or BF16, not {dtype}"
        )
    array = np.frombuffer(data, DTYPES[dtype]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="))


def save_tensors(path: StrPath, what: str, fields: Mapping[str, Any], tensors: Tensors) -> None:
    """Write one of our files.

    Args:
        path: Where to write.
        what: What the file is, such as ``genome``.
        fields: JSON values that describe it.
        tensors: Arrays by name.
    """
    write_atomically(path, file_content(what, fields, tensors))


def file_content(what: str, fields: Mapping[str, Any], tensors: Tensors) -> bytes:
    """Return what :func:`save_tensors` writes."""
    # safetensors reads raw memory, so a transposed view would be written in the wrong order
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    described = {**fields, "format": FORMAT, "what": what}
    described["sha256"] = _digest(described, tensors)
    metadata = {METADATA_KEY: canonical_json(described)}
    return safetensors.numpy.save(tensors, metadata)


def load_tensors(path: StrPath, what: str) -> tuple[dict[str, Any], Tensors]:
    """Read one of our files and check its version, its kind and its checksum.

    Args:
        path: The file.
        what: What the file must be, such as ``genome``.

    Returns:
        Its fields and its arrays, as :func:`save_tensors` got them.

    Raises:
        GenomeFileError: It is not such a file, or a byte of it was altered.
    """
    tensors, metadata = read_tensors(path)
    if METADATA_KEY not in metadata:
        raise GenomeFileError(
            f"{path}: expected the metadata key '{METADATA_KEY}', but the file has "
            f"{', '.join(sorted(metadata)) or 'no metadata'}: it was not written by cultivar"
        )
    fields = parse_fields(path, metadata[METADATA_KEY])
    if fields.get("what") != what:
        raise GenomeFileError(f"{path}: expected a {what} file, not {fields.get('what')!r:.40}")
    expected = fields.pop("sha256", None)
    try:
        found = _digest(fields, tensors)
    except RecursionError as error:
        raise GenomeFileError(f"{path}: expected a few levels of metadata, not hundreds") from error
    if expected != found:
        raise GenomeFileError(
            f"{path}: the content was altered: expected the SHA-256 {expected!s:.64}, found {found}"
        )
    return fields, tensors


def parse_fields(source: StrPath, text: str | bytes) -> dict[str, Any]:
    """Parse the JSON that describes one of our files, and check its format version.

    Raises:
        GenomeFileError: It is not JSON, not a mapping, or of another format version.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GenomeFileError(f"{source}: expected JSON in the metadata, but {error}") from error
    if not isinstance(fields, dict):
        raise GenomeFileError(f"{source}: expected a mapping in the metadata, not {fields!r:.40}")
    if fields.get("format") != FORMAT:
        raise GenomeFileError(
            f"{source}: expected format {FORMAT}, not {fields.get('format')!r:.40}: "
            "it was written by another version of cultivar"
        )
    return fields


def _digest(fields: Mapping[str, Any], tensors: Tensors) -> str:
    """Return the SHA-256 over the fields and, in order of their names, all tensors."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype.name}:{tensor.shape}".encode())
        digest.update(little_endian_bytes(tensor))
    return digest.hexdigest()


def little_endian_bytes(tensor: NDArray[Any]) -> bytes:
    """Return the bytes of a tensor in C order, the same on every machine."""
    return tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()
