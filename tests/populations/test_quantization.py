"""Laws of the int8 codec, over all magnitudes of float32."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from populations.errors import GenomeValueError
from populations.quantization import (
    LARGEST_SCALE,
    MAX_CODE,
    SMALLEST_AMPLITUDE,
    dequantize,
    is_canonical,
    quantize,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)  # subnormals included
USUAL = st.floats(-4, 4, width=32)
WEIGHTS = hnp.arrays(np.float32, SHAPES, elements=FLOATS) | hnp.arrays(
    np.float32, SHAPES, elements=USUAL
)


@given(WEIGHTS)
def test_round_trip_error_is_at_most_half_a_step(weight) -> None:
    codes, scales = quantize(weight)
    step = scales.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    error = np.abs(dequantize(codes, scales).astype(np.float64) - weight.astype(np.float64))
    # half a step, and the rounding of code * scale to float32
    assert (error <= step / 2 + np.abs(weight.astype(np.float64)) * 2.0**-22).all()


@given(WEIGHTS)
def test_quantizing_again_changes_no_bit(weight) -> None:
    codes, scales = quantize(weight)
    again, scales_again = quantize(dequantize(codes, scales))
    assert codes.tobytes() == again.tobytes()
    assert scales.tobytes() == scales_again.tobytes()
    assert is_canonical(codes, scales)


@given(WEIGHTS)
def test_every_row_uses_the_whole_range_or_is_zero(weight) -> None:
    codes, scales = quantize(weight)
    for row, scale in zip(np.abs(codes.reshape(len(codes), -1).astype(int)), scales, strict=True):
        assert row.max() == MAX_CODE or (row.max() == 0 and scale == 1)


@given(WEIGHTS)
def test_codes_and_scales_are_valid(weight) -> None:
    codes, scales = quantize(weight)
    assert codes.dtype == np.int8
    assert codes.shape == weight.shape
    assert codes.min() >= -MAX_CODE
    assert scales.dtype == np.float32
    assert scales.shape == weight.shape[:1]
    assert ((scales >= np.finfo(np.float32).tiny) & (scales <= LARGEST_SCALE)).all()
    assert np.isfinite(dequantize(codes, scales)).all()


@given(WEIGHTS)
def test_negating_a_weight_negates_its_codes(weight) -> None:
    codes, scales = quantize(weight)
    negated, negated_scales = quantize(-weight)
    np.testing.assert_array_equal(negated, -codes)
    np.testing.assert_array_equal(negated_scales, scales)


@given(WEIGHTS, st.integers(-20, 20))
def test_a_power_of_two_moves_into_the_scale(weight, exponent) -> None:
    amplitude = np.abs(weight)[weight != 0]
    assume(amplitude.size == 0 or (amplitude.min() > 1e-25 and amplitude.max() < 1e25))
    codes, scales = quantize(weight)
    moved, moved_scales = quantize(np.ldexp(weight, exponent))
    np.testing.assert_array_equal(moved, codes)
    zero_rows = np.abs(weight.reshape(len(weight), -1)).max(axis=1) == 0
    np.testing.assert_array_equal(moved_scales[~zero_rows], np.ldexp(scales, exponent)[~zero_rows])


def test_the_scale_is_the_amplitude_over_127() -> None:
    weight = np.array([[0.5, -1.27, 0.635], [0, 0, 0]], np.float32)
    codes, scales = quantize(weight)
    np.testing.assert_array_equal(codes, [[50, -127, 64], [0, 0, 0]])  # 63.5 rounds to even
    np.testing.assert_array_equal(scales, np.array([np.float32(1.27) / 127, 1], np.float32))


def test_a_row_too_small_for_a_normal_scale_counts_as_zero() -> None:
    below = np.float32(np.nextafter(np.float32(SMALLEST_AMPLITUDE), np.float32(0)))
    codes, scales = quantize(np.array([[below], [SMALLEST_AMPLITUDE], [1e-45]], np.float32))
    np.testing.assert_array_equal(codes, [[0], [MAX_CODE], [0]])
    np.testing.assert_array_equal(scales[[0, 2]], 1)


def test_the_largest_float_does_not_overflow() -> None:
    largest = np.finfo(np.float32).max
    weight = np.array([[largest, -largest]], np.float32)
    codes, scales = quantize(weight)
    assert is_canonical(codes, scales)
    np.testing.assert_allclose(dequantize(codes, scales), weight, rtol=1e-6)


def test_which_scales_are_fixpoints() -> None:
    """A scale is one unless its 24-bit mantissa M has M = 64 mod 128 and 127 M >= 2**30.

    127 M = 128 M - M is rounded to 24 bits. With 127 M >= 2**30 seven bits go, and the tie M = 64
    mod 128 is off by half a unit of 2**7: divided by 127 that is 64/127 > 1/2 a unit of M, the next
    scale. All other remainders, and the six bits that go below 2**30, err by at most 63/127 and
    64/127 / 2 of a unit. No float32 amplitude A gives such a scale: for M = 128 q + 64 the nearest
    are A = M - q and M - q - 1, which give M + 64/127 rounded up and M - 64/127 rounded down.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(2**23, 2**24, 4000)
    edges = np.arange(-256, 256) + 2**30 // 127
    mantissas = np.concatenate([drawn, drawn // 128 * 128 + 64, edges])
    mantissas = mantissas[(mantissas >= 2**23) & (mantissas < 2**24)]
    for exponent in (-140, -24, 70):  # tiny, usual and huge scales
        scales = np.ldexp(mantissas.astype(np.float32), exponent)
        codes = np.full((len(scales), 1), MAX_CODE, np.int8)
        _, again = quantize(dequantize(codes, scales))
        expected = ~((mantissas % 128 == 64) & (127 * mantissas >= 2**30))
        np.testing.assert_array_equal(again == scales, expected)
        assert not expected.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value) -> None:
    with pytest.raises(GenomeValueError, match="NaN or infinity"):
        quantize(np.array([[1, value]], np.float32))


def test_a_row_without_the_largest_code_is_not_canonical() -> None:
    scales = np.ones(1, np.float32)
    assert is_canonical(np.array([[127, 3]], np.int8), scales)
    assert not is_canonical(np.array([[126, 3]], np.int8), scales)
    assert not is_canonical(np.array([[0, 0]], np.int8), np.full(1, 2, np.float32))
