"""Networks that need no training."""

from collections.abc import Callable

import numpy as np
import pytest

from populations.network import NetworkSpec, Weights

RandomNetworks = Callable[[NetworkSpec, int, int], list[Weights]]


@pytest.fixture(scope="session")
def random_networks() -> RandomNetworks:
    """Return a maker of random networks, by spec, number and seed."""

    def make(spec: NetworkSpec, n_networks: int, seed: int) -> list[Weights]:
        rng = np.random.default_rng(seed)
        return [
            {
                name: rng.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
                for name, shape in spec.shapes.items()
            }
            for _ in range(n_networks)
        ]

    return make
