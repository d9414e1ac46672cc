from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from populations.network import NetworkSpec, Weights
from strategies.operator import Family

MakeFamily = Callable[[NetworkSpec, int], Family]


@pytest.fixture(scope="session")
def constant_family() -> MakeFamily:
    """Make parents whose numbers are all 1 (the first), 2 (the second), ..."""

    def make(spec: NetworkSpec, n_parents: int = 2) -> Family:
        parents: list[Weights] = [
            {name: np.full(shape, value + 1, np.float32) for name, shape in spec.shapes.items()}
            for value in range(n_parents)
        ]
        return Family(parents, spec, [f"p{i}" for i in range(n_parents)], [0.0] * n_parents)

    return make
