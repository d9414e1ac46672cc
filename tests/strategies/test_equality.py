from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from strategies.equality import alike

NAN = math.nan


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1.5, NAN, math.inf, "a", None, True, (), [], {}, {1, 2}),
        (1, (2.0, [NAN])),
        {"a": np.array([1.0, NAN]), "b": (np.zeros((2, 0)), "c")},
        np.array(["x", "y"]),
        np.array([None, (1, NAN)], dtype=object),
        np.float32(NAN),
    ],
    ids=repr,
)
def test_a_value_is_alike_its_copy(value: Any) -> None:
    assert alike(value, copy.deepcopy(value))
    assert alike([value], [copy.deepcopy(value)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (NAN, 1.0),
        ("1", 1),
        ((1, 2), [1, 2]),
        ((1, 2), (1, 2, 3)),
        ({"a": 1}, {"b": 1}),
        ({"a": NAN}, {"a": None}),
        (np.array([1, 2]), [1, 2]),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(1), 0.0),
    ],
)
def test_what_differs_is_not_alike(one: Any, other: Any) -> None:
    assert not alike(one, other)
    assert not alike(other, one)
    assert not alike([one], [other])
