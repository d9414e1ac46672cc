import numpy as np
import pytest

from strategies.shares import draw_shares


def test_two_parents_share_what_one_number_divides() -> None:
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    first = other.uniform(0.2, 0.7)
    assert draw_shares(0.2, 0.7, 2, rng) == [first, 1 - first]
    assert rng.random() == other.random()  # nothing else was drawn


@pytest.mark.parametrize("n_parents", [2, 3, 6])
def test_shares_sum_to_one(n_parents: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        shares = draw_shares(0.1, 0.9, n_parents, rng)
        assert len(shares) == n_parents
        assert sum(shares) == pytest.approx(1)
        assert min(shares) >= 0


def test_a_first_share_outside_of_one_leaves_a_negative_rest() -> None:
    shares = draw_shares(1.5, 1.5, 3, np.random.default_rng(0))
    assert shares[0] == 1.5
    assert sum(shares[1:]) == pytest.approx(-0.5)
    assert max(shares[1:]) <= 0
