from __future__ import annotations

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies.mutation import GaussianMutation, Newborn
from strategies.testing import SPECS, random_family

WIDE = NetworkSpec((400,), (300,), 2, norm="layer")


def test_noise_on_weights_and_bias_follows_the_rms_of_the_row() -> None:
    weights = {name: np.zeros(shape, np.float32) for name, shape in WIDE.shapes.items()}
    weights["network.0.weight"][:150] = 2.0
    weights["network.0.weight"][150:] = -0.01
    child = GaussianMutation(scale=0.1).mutate(Newborn(weights, WIDE), np.random.default_rng(0))
    noise = child["network.0.weight"] - weights["network.0.weight"]
    # Standard errors: 0.3 % for 60,000 weights, 6 % for 150 biases.
    assert noise[:150].std() == pytest.approx(0.2, rel=0.02)
    assert noise[150:].std() == pytest.approx(0.001, rel=0.02)
    assert child["network.0.bias"][:150].std() == pytest.approx(0.2, rel=0.25)
    assert child["network.0.bias"][150:].std() == pytest.approx(0.001, rel=0.25)


def test_noise_on_normalizations_is_relative_to_one() -> None:
    (weights,) = random_family(WIDE, 1, seed=0)
    child = GaussianMutation(scale=0.1).mutate(Newborn(weights, WIDE), np.random.default_rng(0))
    for name in ("network.1.weight", "network.1.bias"):
        assert (child[name] - weights[name]).std() == pytest.approx(0.1, rel=0.2)


def test_a_row_of_zeros_can_move() -> None:
    weights = {name: np.zeros(shape, np.float32) for name, shape in WIDE.shapes.items()}
    child = GaussianMutation(scale=1.0).mutate(Newborn(weights, WIDE), np.random.default_rng(0))
    assert child["network.0.weight"].std() == pytest.approx(1 / 20, rel=0.02)  # 400 inputs


def test_share_is_the_probability_that_a_number_changes() -> None:
    (weights,) = random_family(WIDE, 1, seed=0)
    child = GaussianMutation(share=0.1).mutate(Newborn(weights, WIDE), np.random.default_rng(0))
    changed = np.mean(child["network.0.weight"] != weights["network.0.weight"])
    assert changed == pytest.approx(0.1, abs=0.005)  # 120,000 draws: 5 standard errors are 0.0043


@pytest.mark.parametrize("params", [{"scale": 0.0}, {"share": 0.0}])
def test_no_noise_gives_the_weights_back(params: dict[str, float]) -> None:
    (weights,) = random_family(SPECS[2], 1, seed=0)
    child = GaussianMutation(**params).mutate(Newborn(weights, SPECS[2]), np.random.default_rng(0))
    assert all(np.array_equal(child[name], weights[name]) for name in weights)


def test_invalid_params_are_refused() -> None:
    with pytest.raises(ValueError, match="scale must be a finite number of at least 0, not -1"):
        GaussianMutation(scale=-1)
    with pytest.raises(ValueError, match=r"share must be a number in \[0, 1\], not 2"):
        GaussianMutation(share=2)
