from __future__ import annotations

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies.flat import flatten, layout_of, unflatten
from strategies.testing import SPECS, random_family

SPEC = NetworkSpec((2,), (2,), 1, norm="layer")


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_network_is_the_same_after_a_round_trip(spec: NetworkSpec) -> None:
    (weights,) = random_family(spec, 1, seed=0)
    vector = flatten(spec, weights)
    assert (vector.shape, vector.dtype) == ((spec.n_parameters,), np.float64)
    again = unflatten(spec, vector)
    assert list(again) == list(spec.shapes)
    for name in spec.shapes:
        assert again[name].dtype == np.float32
        np.testing.assert_array_equal(again[name], weights[name])


def test_tensors_do_not_share_memory_with_the_vector_or_with_each_other() -> None:
    vector = np.zeros(SPEC.n_parameters, np.float32)
    tensors = unflatten(SPEC, vector)
    for number, tensor in enumerate(tensors.values(), 1):
        tensor[...] = number
    assert not vector.any()
    assert [np.unique(tensor).tolist() for tensor in tensors.values()] == [
        [number] for number in range(1, 7)
    ]


def test_the_layout_by_hand() -> None:
    layout = layout_of(SPEC)
    # (2, 2) weights of the first layer, bias, norm, norm; (1, 2) weights of the second, bias
    assert layout.unit.tolist() == [0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 2, 2, 2]
    assert layout.row.tolist() == [1, 1, 2, 2, 1, 2, 0, 0, 0, 0, 3, 3, 3]
    assert layout.layer.tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2]


def test_nobody_can_write_into_a_layout() -> None:
    for array in vars(layout_of(SPEC)).values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
