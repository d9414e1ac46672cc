"""What students imitate: the Q-values of teachers, made comparable or as they are."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray


def targets(
    values: NDArray[np.float32], kind: Literal["advantages", "raw"]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what students imitate, and the scale of each teacher.

    The scale is the median over states of the gap between a teacher's best and second best action.
    Where half of its gaps are zero it is their mean, and 1 for a teacher without any preference.

    Args:
        values: Q-values ``(T, N, A)`` of at least two actions.
        kind: ``raw`` for the Q-values themselves, or ``advantages`` for
            ``(Q - mean_a Q) / scale``, which makes teachers comparable.

    Returns:
        Targets ``(T, N, A)``, and scales ``(T,)``, whatever the kind.
    """
    ordered = np.sort(values, axis=2)
    gaps = ordered[:, :, -1] - ordered[:, :, -2]  # (T, N)
    scales = np.median(gaps, axis=1)
    scales = np.where(scales > 0, scales, gaps.mean(axis=1))
    scales = np.where(scales > 0, scales, 1.0).astype(np.float32)
    if kind == "raw":
        return values, scales
    return (values - values.mean(axis=2, keepdims=True)) / scales[:, None, None], scales
