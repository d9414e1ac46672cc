from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import geometric_slerp

from strategies.spherical import arc_cosines, arc_weights

seeds = st.integers(0, 10_000)
shares = st.floats(0, 1)


def unit_rows(seed: int, n_rows: int = 3, n: int = 5) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((n_rows, n))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def row_weights(
    first: NDArray[np.floating], second: NDArray[np.floating], t: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights of pairs of rows, ``(n_rows, 1)`` each."""
    n_rows, n = first.shape
    rows = np.repeat(np.arange(1, n_rows + 1), n)
    flat = (each.astype(np.float64).ravel() for each in (first, second))
    a, b = arc_weights(arc_cosines(*flat, rows), t)
    return a[1:, None], b[1:, None]


def pair(cosine: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return two rows of length 1 at an angle."""
    sine = np.sqrt(1 - cosine**2)
    return np.array([[1, 0]], np.float32), np.array([[cosine, sine]], np.float32)


@given(seed=seeds, t=shares)
def test_unit_vectors_move_along_the_great_circle_as_in_scipy(seed: int, t: float) -> None:
    first, second = unit_rows(seed), unit_rows(seed + 1)
    a, b = row_weights(first, second, t)
    for ours, x, y in zip(a * first + b * second, first, second, strict=True):
        # Float32 vectors are of length 1 up to 1e-7, which scipy refuses.
        start, end = (each / np.linalg.norm(each) for each in (y.astype(float), x.astype(float)))
        theirs = geometric_slerp(start, end, t, tol=1e-5)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)  # lerp near parallel: angle^2 / 8


@given(seed=seeds, t=shares)
def test_vectors_of_one_length_keep_it(seed: int, t: float) -> None:
    first, second = 7 * unit_rows(seed), 7 * unit_rows(seed + 1)
    a, b = row_weights(first, second, t)
    np.testing.assert_allclose(np.linalg.norm(a * first + b * second, axis=1), 7, rtol=2e-4)


@given(seed=seeds)
def test_the_ends_are_exactly_one_of_the_vectors(seed: int) -> None:
    first, second = unit_rows(seed), 3 * unit_rows(seed + 1)
    for t in (0.0, 1.0):
        a, b = row_weights(first, second, t)
        assert (a == t).all()
        assert (b == 1 - t).all()


@given(seed=seeds, t=shares)
def test_the_shares_change_places_with_the_vectors(seed: int, t: float) -> None:
    first, second = unit_rows(seed), unit_rows(seed + 1)
    a, b = row_weights(first, second, t)
    b_too, a_too = row_weights(second, first, 1 - t)
    np.testing.assert_allclose(a, a_too, atol=1e-9)
    np.testing.assert_allclose(b, b_too, atol=1e-9)


def test_half_way_between_vectors_at_a_right_angle_is_their_sum_over_the_root_of_two() -> None:
    a, b = row_weights(*pair(0.0), 0.5)
    assert a.item() == pytest.approx(np.sqrt(0.5))
    assert b.item() == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize("cosine", [1.0, 0.9996])
def test_nearly_parallel_vectors_are_mixed_linearly(cosine: float) -> None:
    a, b = row_weights(*pair(cosine), 0.3)
    assert (a.item(), b.item()) == (0.3, 0.7)
    a, b = row_weights(*pair(0.9994), 0.3)
    assert a.item() > 0.3


@pytest.mark.parametrize(
    ("t", "expected"), [(0.0, (0, 1)), (0.4, (0, 1)), (0.5, (1, 0)), (0.6, (1, 0)), (1.0, (1, 0))]
)
@pytest.mark.parametrize("cosine", [-1.0, -0.9996])
def test_of_nearly_opposite_vectors_the_one_with_the_larger_share_is_taken(
    t: float, expected: tuple[int, int], cosine: float
) -> None:
    a, b = row_weights(*pair(cosine), t)
    assert (a.item(), b.item()) == expected


def test_a_vector_of_zeros_is_mixed_linearly() -> None:
    zeros, ones = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    for first, second in ((zeros, ones), (ones, zeros), (zeros, zeros)):
        a, b = row_weights(first, second, 0.25)
        assert (a.item(), b.item()) == (0.25, 0.75)


def test_every_vector_has_a_case_of_its_own() -> None:
    first = np.array([[1, 0], [1, 0], [1, 0], [0, 0]], np.float32)
    second = np.array([[0, 1], [2, 0], [-1, 0], [1, 1]], np.float32)
    a, b = row_weights(first, second, 0.25)
    eighth = np.pi / 8  # a quarter of the right angle
    np.testing.assert_allclose(a[:, 0], [np.sin(eighth), 0.25, 0, 0.25])
    np.testing.assert_allclose(b[:, 0], [np.cos(eighth), 0.75, 1, 0.75])


def test_tiny_and_huge_vectors_have_angles() -> None:
    for scale in (1e-30, 1e30):
        first, second = (np.float32(scale) * each for each in pair(0.0))
        a, b = row_weights(first, second, 0.5)
        assert (a.item(), b.item()) == pytest.approx((np.sqrt(0.5), np.sqrt(0.5)))


def test_cosines_are_those_of_each_group_by_hand() -> None:
    first = np.array([3.0, 1, 0, 4, 7, 0])
    second = np.array([3.0, 0, 1, -4, 9, 5])
    groups = np.array([1, 2, 2, 1, 0, 3])
    # (3, 4) and (3, -4): (9 - 16) / 25; (1, 0) and (0, 1); one number of group 0; a zero in group 3
    np.testing.assert_allclose(arc_cosines(first, second, groups), [1, -7 / 25, 0, 1])


@given(cosine=st.floats(-1, 1), t=shares)
def test_weights_of_vectors_of_length_one_give_one_of_length_one(cosine: float, t: float) -> None:
    a, b = arc_weights(np.array([cosine]), t)
    length = np.sqrt(a**2 + b**2 + 2 * a * b * cosine)
    np.testing.assert_allclose(length, 1, atol=2e-4)
