from __future__ import annotations

import math

import numpy as np
import pytest

from strategies.checks import limits, number, whole_number


@pytest.mark.parametrize("value", [0, 1, 0.25, np.float32(0.5), np.int64(1)])
def test_numbers_in_range_become_floats(value: object) -> None:
    assert type(number("share", value, 0.0, 1.0)) is float


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, "0.5", None, True])
def test_other_values_are_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match=r"share must be a number in \[0, 1\], not "):
        number("share", value, 0.0, 1.0)


def test_an_open_range_is_described_as_such() -> None:
    with pytest.raises(ValueError, match="scale must be a finite number of at least 0, not -1"):
        number("scale", -1, low=0.0)
    with pytest.raises(ValueError, match="low must be a finite number, not inf"):
        number("low", math.inf)


def test_whole_numbers_are_returned_as_int() -> None:
    assert type(whole_number("size", np.int64(3), low=1)) is int


@pytest.mark.parametrize("value", [0, 2.0, "3", None, True])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="size must be a whole number of at least 1, not "):
        whole_number("size", value, low=1)


def test_limits_are_two_numbers_in_order() -> None:
    assert limits(0, 1, 0.0, 1.0) == (0.0, 1.0)
    assert limits(-3, -3) == (-3.0, -3.0)
    with pytest.raises(ValueError, match=r"low \(0\.6\) must not be above high \(0\.5\)"):
        limits(0.6, 0.5)
    with pytest.raises(ValueError, match=r"high must be a number in \[0, 1\], not 1\.5"):
        limits(0.6, 1.5, 0.0, 1.0)
