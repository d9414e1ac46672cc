"""Versions of the software that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions(*names: str) -> dict[str, str]:
    """Return the versions of Python and of installed distributions, without importing them."""
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
