"""Genomes and weights on disk: one genome, the genomes of a generation, a float network.

Every way in which a file can be wrong ends in a :class:`GenomeFileError` that names the file, what
was expected and what came.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from populations.errors import GenomeError, GenomeFileError
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec, Weights
from populations.regular_files import StrPath
from populations.tensor_file import (
    FORMAT,
    LENGTH_BYTES,
    Tensors,
    canonical_json,
    file_content,
    little_endian_bytes,
    load_tensors,
    parse_fields,
    read_tensors,
    save_tensors,
    write_atomically,
)

__all__ = [
    "genome_file_size",
    "genome_from_bytes",
    "genome_to_bytes",
    "load_genome",
    "load_pack",
    "load_weights",
    "read_tensors",
    "save_genome",
    "save_pack",
    "save_weights",
    "write_atomically",
]


def save_genome(path: StrPath, genome: Genome) -> None:
    """Write one genome; equal genomes of equal lineage give equal bytes."""
    write_atomically(path, _genome_file(genome))


def genome_file_size(genome: Genome) -> int:
    """Return the number of bytes that :func:`save_genome` writes, without making the file.

    The tensors of one architecture take the same space whatever they hold; genomes differ in the
    length of the JSON that describes them.
    """
    header, tensors = _sizes_without_fields(genome.spec, genome.vector_dtype)
    # They come without quotes and braces of their own, but with a comma.
    header += len(json.dumps(canonical_json(_genome_fields(genome)))) - 3
    padded = -(-header // LENGTH_BYTES) * LENGTH_BYTES
    return LENGTH_BYTES + padded + tensors


@lru_cache(maxsize=64)
def _sizes_without_fields(spec: NetworkSpec, vector_dtype: str) -> tuple[int, int]:
    """Return the bytes of header, without padding, and tensors of a genome file without fields."""
    layout = _layout(spec, vector_dtype)
    content = file_content("genome", {}, {name: np.zeros(s, dtype) for name, dtype, s in layout})
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    header = content[LENGTH_BYTES : LENGTH_BYTES + length].rstrip(b" ")
    return len(header), len(content) - LENGTH_BYTES - length


def _genome_file(genome: Genome) -> bytes:
    return file_content("genome", _genome_fields(genome), genome.tensors())


def _genome_fields(genome: Genome) -> dict[str, Any]:
    return {
        "id": genome.id,
        "spec": genome.spec.to_dict(),
        "lineage": genome.lineage.to_dict(),
    }


def load_genome(path: StrPath) -> Genome:
    """Read a file of :func:`save_genome`.

    Raises:
        GenomeFileError: The file is missing, truncated, altered, or not a genome.
    """
    fields, tensors = load_tensors(path, "genome")
    with _naming(path):
        return _build(NetworkSpec.from_dict(fields["spec"]), tensors, fields)


def save_pack(path: StrPath, genomes: Iterable[Genome]) -> None:
    """Write many genomes into one file.

    Genomes of one architecture are stacked: ``0/network.0.weight`` has shape
    ``(n_genomes, out, in)``.

    Args:
        path: Where to write.
        genomes: In the order in which they are to be read; of equal ids the first one is kept.
    """
    unique: dict[str, Genome] = {}
    for genome in genomes:
        unique.setdefault(genome.id, genome)
    groups: dict[tuple[NetworkSpec, str], list[Genome]] = {}
    for genome in unique.values():
        groups.setdefault((genome.spec, genome.vector_dtype), []).append(genome)
    numbers = {key: number for number, key in enumerate(groups)}
    fields = {
        "specs": [spec.to_dict() for spec, _ in groups],
        "genomes": [
            {
                "id": genome.id,
                "spec": numbers[genome.spec, genome.vector_dtype],
                "lineage": genome.lineage.to_dict(),
            }
            for genome in unique.values()
        ],
    }
    stacked: Tensors = {}
    for key, members in groups.items():
        parts = [genome.tensors() for genome in members]
        for name in parts[0]:
            stacked[f"{numbers[key]}/{name}"] = np.stack([part[name] for part in parts])
    save_tensors(path, "pack", fields, stacked)


def load_pack(path: StrPath) -> dict[str, Genome]:
    """Read a file of :func:`save_pack`.

    Returns:
        Genomes by id, in the order in which they were saved.

    Raises:
        GenomeFileError: The file is missing, truncated, altered, or not a pack.
    """
    fields, tensors = load_tensors(path, "pack")
    with _naming(path):
        by_group: dict[str, Tensors] = {}
        for name, tensor in tensors.items():
            number, _, own_name = name.partition("/")
            by_group.setdefault(number, {})[own_name] = tensor
        sizes = Counter(entry["spec"] for entry in fields["genomes"])
        groups = [
            _Group(NetworkSpec.from_dict(spec), by_group.get(str(i), {}), sizes[i])
            for i, spec in enumerate(fields["specs"])
        ]
        loaded = [groups[entry["spec"]].next(entry) for entry in fields["genomes"]]
        return {genome.id: genome for genome in loaded}


class _Group:
    """The genomes of one architecture in a pack, handed out row by row."""

    def __init__(self, spec: NetworkSpec, tensors: Tensors, n_genomes: int) -> None:
        for name, tensor in tensors.items():
            if tensor.shape[:1] != (n_genomes,):
                raise ValueError(f"{name} must hold {n_genomes} genomes, not shape {tensor.shape}")
        self._spec = spec
        self._tensors = tensors
        self._row = 0

    def next(self, entry: Mapping[str, Any]) -> Genome:
        tensors = {name: tensor[self._row].copy() for name, tensor in self._tensors.items()}
        self._row += 1
        return _build(self._spec, tensors, entry)


def save_weights(
    path: StrPath, spec: NetworkSpec, weights: Weights, extra: Mapping[str, Any]
) -> None:
    """Write a float32 network, such as a teacher.

    Args:
        path: Where to write.
        spec: Its architecture.
        weights: Its tensors.
        extra: JSON values to keep with it; tuples are read back as lists.

    Raises:
        GenomeShapeError: The weights are not those of ``spec``.
        GenomeValueError: A weight is NaN or infinite.
    """
    spec.check(weights, str(path))
    fields = {"spec": spec.to_dict(), "extra": dict(extra)}
    save_tensors(path, "weights", fields, dict(weights))


def load_weights(path: StrPath) -> tuple[NetworkSpec, dict[str, NDArray[np.float32]], Any]:
    """Read a file of :func:`save_weights`.

    Returns:
        The architecture, the tensors in its order, and the extra values.

    Raises:
        GenomeFileError: The file is missing, truncated, altered, or does not hold weights.
    """
    fields, tensors = load_tensors(path, "weights")
    with _naming(path):
        spec = NetworkSpec.from_dict(fields["spec"])
        spec.check(tensors, "its tensors")
        extra: dict[str, Any] = fields["extra"]
        return spec, {name: tensors[name] for name in spec.shapes}, extra


def genome_to_bytes(genome: Genome) -> bytes:
    """Return a genome as a line of JSON and its raw tensors: smaller than a genome file.

    The id covers spec and tensors; whoever keeps these bytes has to protect the lineage.
    """
    fields = {
        "format": FORMAT,
        "id": genome.id,
        "spec": genome.spec.to_dict(),
        "lineage": genome.lineage.to_dict(),
        "vectors": genome.vector_dtype,
    }
    tensors = b"".join(little_endian_bytes(tensor) for tensor in genome.tensors().values())
    return canonical_json(fields).encode() + b"\n" + tensors


def genome_from_bytes(content: bytes) -> Genome:
    """Rebuild a genome from :func:`genome_to_bytes`.

    Raises:
        GenomeFileError: The bytes are truncated, altered, or not a genome.
    """
    source = "genome in memory"
    head, _, body = content.partition(b"\n")
    fields = parse_fields(source, head)
    with _naming(source):
        spec = NetworkSpec.from_dict(fields["spec"])
        layout = _layout(spec, fields["vectors"])
        n_bytes = sum(dtype.itemsize * math.prod(shape) for _, dtype, shape in layout)
        if len(body) != n_bytes:
            raise ValueError(f"expected {n_bytes} bytes of tensors, not {len(body)}")
        tensors: Tensors = {}
        start = 0
        for name, dtype, shape in layout:
            flat = np.frombuffer(body, dtype, math.prod(shape), start)
            tensors[name] = flat.reshape(shape).astype(dtype.newbyteorder("="))
            start += flat.nbytes
        return _build(spec, tensors, fields)


def _layout(
    spec: NetworkSpec, vector_dtype: str
) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Return name, dtype and shape of each stored tensor, in the order of ``Genome.tensors``."""
    if vector_dtype not in ("float32", "float16"):
        raise ValueError(f"vectors must be float32 or float16, not {vector_dtype!r:.40}")
    layout: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = []
    matrices = set(spec.matrices)
    for name, shape in spec.shapes.items():
        if name in matrices:
            layout += [
                (name, np.dtype("i1"), shape),
                (f"{name}.scale", np.dtype("<f4"), shape[:1]),
            ]
        else:
            layout.append((name, np.dtype(vector_dtype).newbyteorder("<"), shape))
    return layout


def _build(spec: NetworkSpec, tensors: Tensors, fields: Mapping[str, Any]) -> Genome:
    """Return the genome of stored tensors; its own checks name what does not fit."""
    rest = dict(tensors)
    scale_names = {name: f"{name}.scale" for name in spec.matrices}
    codes = {name: rest.pop(name) for name in spec.matrices if name in rest}
    scales = {name: rest.pop(stored) for name, stored in scale_names.items() if stored in rest}
    vectors = {name: rest.pop(name) for name in spec.vectors if name in rest}
    lineage = Lineage.from_dict(fields["lineage"])
    genome = Genome(spec, codes, scales, {**vectors, **rest}, lineage)
    if genome.id != fields["id"]:
        raise GenomeFileError(
            f"expected the genome {fields['id']!s:.40}, but the content is {genome.id}"
        )
    return genome


@contextmanager
def _naming(source: StrPath) -> Iterator[None]:
    """Turn what goes wrong with the content of a file into an error that names the file."""
    try:
        yield
    except GenomeError as error:
        raise GenomeFileError(f"{source}: {error}") from error
    except KeyError as error:
        raise GenomeFileError(f"{source}: expected the field {error} in its metadata") from error
    except (IndexError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise GenomeFileError(f"{source}: damaged metadata: {error}") from error
