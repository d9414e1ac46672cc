"""What a machine says of itself before it is given work.

These functions travel to the machine by value, since cultivar may be missing there: they import
what they need themselves, and nothing of cultivar.
"""

from __future__ import annotations

from typing import Any

DISTRIBUTIONS = ("cultivar", "torch", "numpy", "gymnasium", "ray")
PACKAGES = ("engine", "strategies", "populations")


def facts() -> dict[str, Any]:
    """Return what the outcome of a run depends on, on the machine that calls this.

    Returns:
        ``versions`` of Python and of the distributions that are there; ``source``, a digest of
        cultivar's source, empty where it is missing; ``cpu``, the vector instructions that torch
        uses, and ``threads``, those that it would start by itself; ``token``, whether Ray's
        processes ask one another for a token.
    """
    import platform
    from importlib import metadata

    versions = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    cpu, threads = "", 0
    if "torch" in versions:
        import torch

        cpu, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return {
        "versions": versions,
        "source": source(),
        "cpu": cpu,
        "threads": threads,
        "token": is_token_auth_enabled(),
    }


def source() -> str:
    """Return a digest of cultivar's Python files: two machines may differ in one version."""
    import hashlib
    import importlib.util
    from pathlib import Path

    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return ""
        folder = Path(spec.origin).parent
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def clock() -> float:
    """Return the time of day."""
    import time

    return time.time()
