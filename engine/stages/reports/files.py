"""Reports on disk: JSON that is always valid and never half written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from populations.storage import write_atomically


def write_json(path: Path, report: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a report; what is not a finite number becomes null.

    Folders are made where they are missing.
    """
    text = json.dumps(plain(report), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())


def plain(value: Any) -> Any:
    """Return ``value`` as JSON values: no arrays, no NaN, no infinity, no paths."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):  # NumPy's float64, too
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    return value
