"""Symmetric int8 codec with one float32 scale per output channel.

A row ``w`` is stored as ``codes * scale`` with ``scale = max|w| / 127`` and codes in
``[-127, 127]``; -128 is never used, so the range is symmetric. A row of zeros has scale 1.
Same scheme as the per-channel symmetric weights of Jacob et al. 2018 (arXiv:1712.05877),
restricted to a zero-point of 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.errors import GenomeValueError

MAX_CODE = 127
# Below this the scale would be a subnormal float32 and lose bits; such a row counts as zero.
SMALLEST_AMPLITUDE = float(np.finfo(np.float32).tiny) * 2 * MAX_CODE
# The largest scale with a finite ``127 * scale``; max / 127 itself rounds up to one that overflows.
LARGEST_SCALE = float(np.nextafter(np.finfo(np.float32).max / np.float32(MAX_CODE), np.float32(0)))


def quantize(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a weight row by row.

    Args:
        weight: Float32 of shape ``(out, ...)``; the first axis is the output channel.

    Returns:
        Codes, int8 of the same shape, and scales, float32 of shape ``(out,)``. The error of an
        element is at most half a step, ``scale / 2``, up to float32 rounding.

    Raises:
        GenomeValueError: The weight holds NaN or infinity.
    """
    if not np.isfinite(weight).all():
        raise GenomeValueError("cannot quantize a weight that holds NaN or infinity")
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    amplitude = np.abs(rows).max(axis=1, initial=0.0)
    is_zero = amplitude < SMALLEST_AMPLITUDE
    scales = np.where(is_zero, 1.0, amplitude / MAX_CODE).astype(np.float32)
    scales = np.minimum(scales, np.float32(LARGEST_SCALE))
    codes = np.clip(np.rint(rows / scales[:, None]), -MAX_CODE, MAX_CODE)
    codes[is_zero] = 0
    return codes.astype(np.int8).reshape(weight.shape), scales


def dequantize(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``codes * scale`` of each output channel as float32 of the shape of ``codes``."""
    per_row = scales.reshape(-1, *([1] * (codes.ndim - 1)))
    return codes.astype(np.float32) * per_row


def is_canonical(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> bool:
    """Tell whether quantizing the dequantized tensor gives back the same codes and scales.

    This holds for everything that :func:`quantize` returns. It fails for a row without a code of
    +-127, and for a scale that is not a float32 amplitude divided by 127.
    """
    again, scales_again = quantize(dequantize(codes, scales))
    return bool(np.array_equal(codes, again) and np.array_equal(scales, scales_again))
