from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from populations.errors import GenomeValueError
from populations.network import NetworkSpec, Weights
from populations.quantization import is_canonical, quantize
from strategies.mutation import IntegerStepMutation, Newborn
from strategies.testing import SPECS, random_family

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)  # subnormals included
USUAL = st.sampled_from([0.0, 0.0, 1.0, -1.0]) | st.floats(-4, 4, width=32)
MATRICES = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=USUAL | FLOATS
)


def linear(matrix: NDArray[np.float32]) -> Newborn:
    """Return a network that is one matrix."""
    n_out, n_in = matrix.shape
    weights = {"network.0.weight": matrix, "network.0.bias": np.ones(n_out, np.float32)}
    return Newborn(weights, NetworkSpec((n_in,), (), n_out))


def mutated(mutation: IntegerStepMutation, child: Newborn, seed: int = 0) -> Weights:
    return mutation.mutate(child, np.random.default_rng(seed))


@given(MATRICES, st.floats(0, 1), st.integers(1, 300), st.integers(0, 2**32))
def test_quantizing_the_mutant_gives_the_stepped_codes(matrix, rate, n_steps, seed) -> None:
    mutant = mutated(IntegerStepMutation(rate, n_steps), linear(matrix), seed)["network.0.weight"]
    codes, scales = quantize(matrix)
    stepped, scales_again = quantize(mutant)
    assert scales_again.tobytes() == scales.tobytes()
    assert is_canonical(stepped, scales_again)
    # Every code is where one of the three steps leads ...
    ways = [np.clip(codes.astype(int) + z * n_steps, -127, 127) for z in (-1, 0, 1)]
    assert np.any([stepped == way for way in ways], axis=0).all()
    # ... and the first largest one of each row, and all of a row of zeros, have stayed.
    for row, after in zip(codes.astype(int), stepped, strict=True):
        largest = int(np.abs(row).argmax())
        assert after[largest] == row[largest]
        assert row.any() or not after.any()
    # The mutant holds what those codes stand for, and nothing else.
    np.testing.assert_array_equal(mutant, stepped.astype(np.float32) * scales[:, None])


def test_steps_are_as_frequent_as_the_rate_in_both_directions() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-100, 101, (300, 400))
    codes[:, 7] = 127
    child = linear(codes.astype(np.float32))
    mutant = mutated(IntegerStepMutation(rate=0.2, n_steps=3), child)["network.0.weight"]
    steps = (mutant - codes)[:, np.arange(400) != 7]
    # 119,700 draws: five standard errors of a share of 0.1 are 0.0043.
    assert np.mean(steps == 3) == pytest.approx(0.1, abs=0.005)
    assert np.mean(steps == -3) == pytest.approx(0.1, abs=0.005)
    assert np.isin(steps, [-3, 0, 3]).all()
    assert (mutant[:, 7] == 127).all()


def test_a_rate_of_one_moves_every_code_but_the_largest_of_its_row() -> None:
    child = linear(np.array([[127, 5, -9], [-127, 0, 60]], np.float32))
    mutant = mutated(IntegerStepMutation(rate=1.0), child)["network.0.weight"]
    assert mutant[:, 0].tolist() == [127, -127]
    assert (np.abs(mutant - child.weights["network.0.weight"])[:, 1:] == 5).all()


def test_steps_end_at_the_largest_code() -> None:
    child = linear(np.array([[127] + [126] * 50 + [-126] * 50], np.float32))
    for n_steps in (2, 10**30):
        mutant = mutated(IntegerStepMutation(1.0, n_steps), child)["network.0.weight"][0]
        ends = {127.0, 124.0} if n_steps == 2 else {127.0, -127.0}
        assert set(mutant[1:51].tolist()) == ends
        assert set(mutant[51:].tolist()) == {-end for end in ends}


def test_a_step_is_a_127th_of_the_largest_weight_of_the_row() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.uniform(-1, 1, (300, 400)).astype(np.float32)
    matrix[150:] *= 10
    mutant = mutated(IntegerStepMutation(rate=0.25, n_steps=5), linear(matrix))["network.0.weight"]
    noise = (mutant - matrix).astype(np.float64)
    # RMS 5 * sqrt(0.25) steps, and that of rounding to codes, sqrt(1 / 12) of a step, beside it.
    expected = np.sqrt(5**2 * 0.25 + 1 / 12) / 127
    assert np.sqrt(np.square(noise[:150]).mean()) == pytest.approx(expected, rel=0.02)
    assert np.sqrt(np.square(noise[150:]).mean()) == pytest.approx(10 * expected, rel=0.02)


def test_vectors_stay() -> None:
    spec = SPECS[3]
    (weights,) = random_family(spec, 1, seed=0)
    mutant = mutated(IntegerStepMutation(rate=1.0), Newborn(weights, spec))
    assert spec.vectors
    for name in spec.vectors:
        np.testing.assert_array_equal(mutant[name], weights[name])
    assert all((mutant[name] != weights[name]).any() for name in spec.matrices)


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(GenomeValueError, match="NaN or infinity"):
        mutated(IntegerStepMutation(), linear(np.array([[1, np.nan]], np.float32)))


def test_invalid_params_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rate must be a number in \[0, 1\], not 1.5"):
        IntegerStepMutation(rate=1.5)
    with pytest.raises(ValueError, match="n_steps must be a whole number of at least 1, not 0"):
        IntegerStepMutation(n_steps=0)
