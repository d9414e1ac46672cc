from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from populations.network import NetworkSpec, Weights
from strategies.crossover import DareCrossover
from strategies.errors import NeedError
from strategies.families import family_of
from strategies.parents import Parent

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")
WIDE = NetworkSpec((200,), (), 100)  # 20 000 weights of one kind: many draws at once


def random_weights(seed: int, spec: NetworkSpec = SPEC) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(s, np.float32) for name, s in spec.shapes.items()}


def constant(value: float, spec: NetworkSpec = WIDE) -> Weights:
    return {name: np.full(shape, value, np.float32) for name, shape in spec.shapes.items()}


def cross(
    operator: DareCrossover,
    parents: list[Weights],
    ancestor: Weights | None,
    spec: NetworkSpec = SPEC,
    seed: int = 0,
) -> Weights:
    known = [Parent(f"p{i}", spec, weights) for i, weights in enumerate(parents)]
    family = family_of(operator, known, [0.0] * len(known), ancestor)
    return operator.cross(family, np.random.default_rng(seed))


def test_every_change_is_dropped_or_enlarged_by_itself() -> None:
    child = cross(DareCrossover(0.2), [constant(1 + 4), constant(1 + 16)], constant(1), WIDE)
    values, counts = np.unique(child["network.0.weight"], return_counts=True)
    # 1 + (4 m + 16 n) / (2 * 0.8), for m and n in {0, 1}, each 1 with probability 0.8
    np.testing.assert_allclose(values, [1, 3.5, 11, 13.5], rtol=1e-6)
    for count, p in zip(counts, [0.04, 0.16, 0.16, 0.64], strict=True):
        assert abs(count / 20_000 - p) <= 4.5 * np.sqrt(p * (1 - p) / 20_000)


def test_biases_and_norms_are_dropped_like_weights() -> None:
    spec = NetworkSpec((2,), (2000,), 2, norm="layer")
    child = cross(DareCrossover(0.3), [constant(1, spec)] * 2, constant(0, spec), spec)
    for name in ("network.0.bias", "network.1.weight", "network.1.bias"):
        dropped = (child[name] == 0).mean()  # of both parents
        assert abs(dropped - 0.09) <= 4.5 * np.sqrt(0.09 * 0.91 / 2000)


@given(
    drop_rate=st.floats(0, 0.9),
    scale=st.floats(-2, 2),
    changes=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    seed=st.integers(0, 100),
)
def test_the_expected_child_is_that_of_task_arithmetic(
    drop_rate: float, scale: float, changes: tuple[float, float], seed: int
) -> None:
    parents = [constant(1 + change) for change in changes]
    child = cross(DareCrossover(drop_rate, low=scale, high=scale), parents, constant(1), WIDE, seed)
    mean = child["network.0.weight"].mean(dtype=np.float64)
    # Variance of tau * m / (1 - p) is tau^2 * p / (1 - p); the average of two has a quarter of
    # each. Six standard errors: hundreds of examples are drawn.
    variance = scale**2 * sum(np.square(changes)) / 4 * drop_rate / (1 - drop_rate)
    bound = 6 * np.sqrt(variance / 20_000) + 1e-5
    assert abs(mean - (1 + scale * sum(changes) / 2)) <= bound


def test_the_noise_has_the_variance_of_the_formula() -> None:
    child = cross(DareCrossover(0.2), [constant(3)] * 2, constant(0), WIDE)
    # 3^2 * 0.2 / 0.8 / 2 parents
    assert child["network.0.weight"].var(dtype=np.float64) == pytest.approx(1.125, rel=0.05)


def test_with_elect_an_entry_follows_the_elected_sign_of_what_is_left() -> None:
    child = cross(DareCrossover(0.2, elect=True), [constant(4), constant(-16)], constant(0), WIDE)
    values, counts = np.unique(child["network.0.weight"], return_counts=True)
    # -16 outvotes 4 wherever it is left, and is not averaged with it
    np.testing.assert_allclose(values, [-20, 0, 5], rtol=1e-6)
    for count, p in zip(counts, [0.8, 0.04, 0.16], strict=True):
        assert abs(count / 20_000 - p) <= 4.5 * np.sqrt(p * (1 - p) / 20_000)


@given(seed=st.integers(0, 50), scale=st.floats(-2, 3), n_parents=st.integers(2, 4))
def test_nothing_dropped_is_task_arithmetic(seed: int, scale: float, n_parents: int) -> None:
    ancestor = random_weights(seed)
    parents = [random_weights(seed + 100 * i) for i in range(1, n_parents + 1)]
    operator = DareCrossover(0.0, low=scale, high=scale, n_parents=n_parents)
    child = cross(operator, parents, ancestor)
    for name in SPEC.shapes:
        change = np.mean([parent[name] - ancestor[name] for parent in parents], axis=0)
        np.testing.assert_allclose(child[name], ancestor[name] + scale * change, atol=1e-5)


def test_scale_zero_gives_the_ancestor() -> None:
    ancestor = random_weights(0)
    child = cross(
        DareCrossover(0.5, low=0, high=0), [random_weights(1), random_weights(2)], ancestor
    )
    assert all(np.array_equal(child[name], ancestor[name]) for name in SPEC.shapes)


def test_children_of_the_same_parents_differ() -> None:
    parents, ancestor = [random_weights(1), random_weights(2)], random_weights(0)
    one, other = (cross(DareCrossover(), parents, ancestor, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one["network.0.weight"], other["network.0.weight"])


def test_parents_without_a_common_ancestor_are_refused() -> None:
    with pytest.raises(NeedError, match=r"dare needs .*common ancestor.*p0 and p1"):
        cross(DareCrossover(), [random_weights(0), random_weights(1)], None)


def test_parameters_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"drop_rate must be a number in \[0, 1\], not 1\.5"):
        DareCrossover(1.5)
    with pytest.raises(ValueError, match="drop_rate must be below 1"):
        DareCrossover(1.0)
    with pytest.raises(ValueError, match="elect must be true or false, not 'yes'"):
        DareCrossover(elect="yes")  # type: ignore[arg-type]
