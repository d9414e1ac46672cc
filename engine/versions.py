"""Versions of the software that a result depends on."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata


def versions(*names: str) -> dict[str, str]:
    """Return the versions of Python and of installed distributions, without importing them."""
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


@cache
def _version(name: str) -> str:
    return metadata.version(name)
