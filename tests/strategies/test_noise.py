from __future__ import annotations

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies.crossover import IsoLineCrossover
from strategies.mutation import GaussianMutation, Newborn
from strategies.noise import row_sizes
from strategies.operator import Family
from strategies.testing import random_family

SPEC = NetworkSpec((4,), (3,), 2, norm="layer")


def test_a_row_has_the_size_of_its_weights_and_a_row_of_zeros_that_of_a_fresh_one() -> None:
    weights = {name: np.zeros(shape, np.float32) for name, shape in SPEC.shapes.items()}
    weights["network.0.weight"][0] = [1, -1, 7, 7]  # RMS 5
    weights["network.0.weight"][1] = 0.25
    weights["network.0.bias"][:] = 100  # of no account
    sizes = row_sizes(SPEC.blocks[0], weights)
    assert sizes.dtype == np.float32
    assert sizes.tolist() == [5, 0.25, 0.5]  # 1 / sqrt(4)
    np.testing.assert_allclose(row_sizes(SPEC.blocks[1], weights), 3**-0.5, rtol=1e-6)


def test_the_noise_of_crossover_and_mutation_follows_the_same_rule() -> None:
    spec = NetworkSpec((30,), (20,), 10, norm="layer")
    (parent,) = random_family(spec, 1, 0)
    family = Family([parent, parent], spec, ["a", "b"], [0.0, 0.0])
    rng = np.random.default_rng(0)
    crossed = [IsoLineCrossover(0.1, 0).cross(family, rng) for _ in range(300)]
    mutated = [GaussianMutation(0.1).mutate(Newborn(parent, spec), rng) for _ in range(300)]
    for name in spec.shapes:
        one, other = (
            np.sqrt(np.mean([np.square(each[name] - parent[name]) for each in made]))
            for made in (crossed, mutated)
        )
        assert one == pytest.approx(other, rel=0.08)  # 4 standard errors for the 10 of a bias
