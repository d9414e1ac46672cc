"""The networks of a stage, each with the sidecar that tells where it comes from.

Beside ``student_A.pt`` lies ``student_A.pt.json``: architecture, sources, seeds and versions, and
the SHA-256 of the ``.pt`` it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import StageError
from engine.learning.checkpoints import encode_int8, encode_network, read_checkpoint
from engine.stages.networks import Network
from engine.stages.reports.files import write_json
from engine.stages.sidecar_fields import fault_in
from engine.versions import versions
from populations.genome import Genome
from populations.network import NetworkSpec
from populations.regular_files import is_regular, read_regular, sha256_of
from populations.storage import write_atomically

FORMAT = "cultivar-pipeline"
SCHEMA_VERSION = 1
LARGEST_SIDECAR = 2**24
"""Bytes; those that cultivar writes have a few thousand."""
DISTRIBUTIONS = ("cultivar", "torch", "numpy")


@dataclass(frozen=True)
class Role:
    """One network of a stage.

    Attributes:
        name: What it is in the stage: ``parent_A``, ``student_A``, ``child`` and so on.
        path: Its file, or None for one in memory.
        network: Its float32 network, dequantized where the file is int8.
        genome: The int8 network of the file, or None for a float one.
        sha256: SHA-256 of the file; empty without one.
        sidecar: What its sidecar says; empty where there is none of ours.
        unsafe: Whether loading it needed, and was allowed, to unpickle without restrictions.
    """

    name: str
    path: Path | None
    network: Network
    genome: Genome | None = None
    sha256: str = ""
    sidecar: dict[str, Any] = field(default_factory=dict)
    unsafe: bool = False

    @property
    def format(self) -> Literal["float32", "int8"]:
        """What the weights of the file are; imported int8 files of AgentFarm become float32."""
        return "float32" if self.genome is None else "int8"

    def source(self, directory: Path) -> dict[str, str | None]:
        """Return path and hash of the file, as the sidecar of a file in ``directory`` has them.

        The path is relative to that folder, so that a folder can be moved as a whole and equal
        runs in different folders write equal sidecars.
        """
        path = None
        if self.path is not None:
            path = Path(os.path.relpath(self.path.resolve(), directory.resolve())).as_posix()
        return {"path": path, "sha256": self.sha256 or None}


def load_role(name: str, path: Path, allow_unsafe: bool = False) -> Role:
    """Read a network and its sidecar.

    NaN and infinite weights are let through, for a validator to report. A JSON file beside the
    network that is not one of our sidecars, such as AgentFarm's, counts as none.

    Args:
        name: What the network is in the stage.
        path: Its file.
        allow_unsafe: Whether a file may be unpickled that is more than a state dict.

    Raises:
        TeacherError: The file is missing, damaged, unsafe, or holds no network.
        StageError: The sidecar is damaged, or belongs to another file.
    """
    checkpoint = read_checkpoint(path, allow_unsafe, allow_non_finite=True)
    digest = sha256_of(path)
    return Role(
        name,
        path,
        Network(checkpoint.spec, checkpoint.weights),
        checkpoint.genome,
        digest,
        _read_sidecar(path, digest),
        checkpoint.unsafe,
    )


def load_source(role: Role, source: str, name: str, allow_unsafe: bool = False) -> Role | None:
    """Read the network that another one was made from, such as the teacher of a student.

    Args:
        role: The network whose sidecar names its sources.
        source: Which of them.
        name: What it is in the stage.
        allow_unsafe: As in :func:`load_role`.

    Returns:
        The network, or None where the sidecar names no file.

    Raises:
        TeacherError: As in :func:`load_role`.
        StageError: The file is not there any more, or was replaced.
    """
    recorded = role.sidecar.get("sources", {}).get(source, {})
    if role.path is None or not recorded.get("path"):
        return None
    path = _tidied(role.path.parent / recorded["path"])
    if not is_regular(path):
        raise StageError(
            f"{path}: expected the {source} that {_sidecar_path(role.path)} names, but there is "
            "none; put it back, or name the file to use with its flag"
        )
    found = load_role(name, path, allow_unsafe)
    if found.sha256 != recorded.get("sha256"):
        raise StageError(
            f"{path}: expected the {source} that {_sidecar_path(role.path)} names, with SHA-256 "
            f"{recorded.get('sha256')}, not {found.sha256}; it was replaced: put it back, or name "
            "the file to use with its flag"
        )
    return found


def save_role(path: Path, network: Network | Genome, sidecar: dict[str, Any]) -> None:
    """Write a network and its sidecar.

    The network comes last, and an earlier one goes first: whoever is stopped in between leaves a
    network that is not there, never one with the sidecar of another.

    Args:
        path: The ``.pt`` file, float32 for a network and int8 for a genome.
        network: What to write.
        sidecar: What :func:`sidecar` returned; the SHA-256 of the file is added to it.

    Raises:
        GenomeValueError: A weight is NaN or infinite.
        StageError: A file cannot be written.
    """
    try:
        if isinstance(network, Genome):
            content = encode_int8(network)
        else:
            content = encode_network(path, network.spec, network.weights)
        path.unlink(missing_ok=True)
        digest = hashlib.sha256(content).hexdigest()
        write_json(_sidecar_path(path), {**sidecar, "sha256": digest})
        write_atomically(path, content)
    except OSError as error:
        raise StageError(f"{path}: cannot be written: {error.strerror}") from error


def sidecar(kind: str, spec: NetworkSpec, dropout: float, **fields: Any) -> dict[str, Any]:
    """Return the sidecar of a network.

    Args:
        kind: What the network is: ``teacher``, ``student``, ``child`` and so on.
        spec: Its architecture.
        dropout: Share of hidden units that is dropped while it trains.
        **fields: What else to tell; by convention ``sources`` (see :meth:`Role.source`),
            ``states``, ``environment``, ``seed``, ``config`` and ``metrics``.
    """
    widths = set(spec.hidden)
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "architecture": {
            **spec.to_dict(),
            "dropout": dropout,
            "input_dim": spec.n_inputs,
            "output_dim": spec.n_actions,
            "hidden_size": widths.pop() if len(widths) == 1 else None,
        },
        "versions": versions(*DISTRIBUTIONS),
        **fields,
    }


def environment_of(*roles: Role) -> str | None:
    """Return the environment that the sidecars agree on; those that name none are not asked."""
    named = {role.sidecar.get("environment") for role in roles} - {None}
    return named.pop() if len(named) == 1 else None


def lineage(role: Role) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """Return the sidecars of a network, of what it was made from, and so on to the first ones.

    Returns:
        Each sidecar after the folder of its file, the network's own first; and what is missing,
        in words: files that are gone or replaced, or that have no sidecar of ours, as a teacher
        from elsewhere, so that nobody knows what they were trained on.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    missing: list[str] = []
    if not role.sidecar:
        return found, [f"{role.path or role.name} has no sidecar"]
    if role.path is None:
        return found, missing
    waiting = [(role.path, role.sidecar)]
    seen = {role.sha256}
    while waiting:
        path, sidecar = waiting.pop(0)
        found.append((path.parent, sidecar))
        for source in sidecar.get("sources", {}).values():
            digest = source.get("sha256")
            if not source.get("path") or digest in seen:
                continue
            seen.add(digest)
            origin = _tidied(path.parent / source["path"])
            if not is_regular(origin):
                missing.append(f"{origin} is not there any more")
            elif sha256_of(origin) != digest:
                missing.append(f"{origin} was replaced")
            elif further := _read_sidecar(origin, digest):
                waiting.append((origin, further))
            else:
                missing.append(f"{origin} has no sidecar")
    return found, missing


def _tidied(path: Path) -> Path:
    """Return a path without ``..`` where that is the same file; behind a link it may not be."""
    tidy = Path(os.path.normpath(path))
    try:
        return tidy if tidy.samefile(path) else path
    except (OSError, ValueError):  # one of them is not there, or no path at all
        return path


def _sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_sidecar(path: Path, digest: str) -> dict[str, Any]:
    """Return the sidecar of a file, or nothing where there is none of ours."""
    file = _sidecar_path(path)
    try:
        content = json.loads(read_regular(file, LARGEST_SIDECAR))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(
            f"{file}: expected the JSON sidecar of {path.name}, but it is damaged ({error}); "
            "remove it, or write both files again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return {}
    if content.get("schema_version") != SCHEMA_VERSION:
        raise StageError(
            f"{file}: expected schema_version {SCHEMA_VERSION}, not "
            f"{content.get('schema_version')!r}; read it with the version of cultivar that wrote it"
        )
    fault = fault_in(content)
    if fault is not None:
        raise StageError(f"{file}: {fault}; it was changed: remove it, or write both files again")
    if content.get("sha256") != digest:
        raise StageError(
            f"{file}: belongs to a file with SHA-256 {content.get('sha256')}, but {path.name} has "
            f"{digest}; one of them was replaced: remove the sidecar, or write both files again"
        )
    return content
