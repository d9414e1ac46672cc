"""What the outcome of a run depends on, recorded when it begins and compared when it goes on."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.config import NOT_IDENTITY, RunConfig
from engine.errors import RunDirectoryError
from engine.strict_yaml import parse_yaml
from engine.versions import versions
from populations.regular_files import sha256_of
from populations.tensor_file import canonical_json

DISTRIBUTIONS = ("cultivar", "torch", "numpy", "gymnasium", "ray")


def provenance(config: RunConfig) -> dict[str, Any]:
    """Return hashes of configuration and plug-ins, the kind of CPU, and versions, as JSON."""
    return {
        "cpu": _cpu(),
        "versions": versions(*DISTRIBUTIONS),
        "config": _fingerprint(config),
        "plugins": _plugins(config),
    }


def compare(file: Path, begun: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Return notes on what is not as it was when the run began.

    Args:
        file: Where the configuration lies, for the message.
        begun: What :func:`provenance` returned then.
        config: The configuration now.

    Raises:
        RunDirectoryError: The configuration or a plug-in was changed.
    """
    mend = "put the original back, or start a new run with another --run-dir"
    notes = []
    if begun["config"] != _fingerprint(config):
        if begun["config"] != _fingerprint_of(file):
            raise RunDirectoryError(f"{file} was changed after the run began; {mend}")
        notes.append(
            f"{file} is of an earlier version of cultivar; settings that are new since then have "
            "their defaults"
        )
    for plugin, digest in _plugins(config).items():
        if begun["plugins"].get(plugin) != digest:
            raise RunDirectoryError(f"{plugin} was changed after the run began; {mend}")
    before = {"CPU": begun["cpu"], **begun["versions"]}
    here = {"CPU": _cpu(), **versions(*DISTRIBUTIONS)}
    changed = [f"{k} {before.get(k)} to {v}" for k, v in here.items() if before.get(k) != v]
    if changed:
        notes.append(
            f"since this run began, {', '.join(changed)}: its bytes may differ from those of an "
            "uninterrupted run"
        )
    return notes


def difference(found: RunConfig, wanted: RunConfig) -> str:
    """Name one setting that differs between two configurations."""
    before, after = _flat(found.identity()), _flat(wanted.identity())
    names = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
    there, here = (textwrap.shorten(repr(v.get(names[0])), 60) for v in (before, after))
    return f"{names[0]} is {there} there and {here} here"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        name: leaf
        for key, value in values.items()
        for name, leaf in _flat(value, f"{prefix}.{key}" if prefix else key).items()
    }


def _fingerprint(config: RunConfig) -> str:
    """Return the SHA-256 of what the outcome of a run depends on."""
    return _digest(config.identity())


def _fingerprint_of(file: Path) -> str:
    """Return the same of a recorded configuration as it is written, without any setting since."""
    values = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    return _digest({name: values[name] for name in values if name not in NOT_IDENTITY})


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


def _plugins(config: RunConfig) -> dict[str, str]:
    """Return the SHA-256 of each plug-in file."""
    return {plugin: sha256_of(plugin) for plugin in config.plugins}


def _cpu() -> str:
    """Return the vector instructions that torch uses; equal bytes are promised per kind."""
    return torch.backends.cpu.get_cpu_capability()
