"""Networks that need no training, and environments that gymnasium does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import pytest

from populations.network import NetworkSpec, Weights


@pytest.fixture
def random_weights() -> Callable[[NetworkSpec, int], Weights]:
    """Return a maker of random weights, by spec and seed."""

    def make(spec: NetworkSpec, seed: int) -> Weights:
        rng = np.random.default_rng(seed)
        return {
            name: rng.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
            for name, shape in spec.shapes.items()
        }

    return make


@pytest.fixture
def balancer() -> Weights:
    """Return weights of a (4,) -> 2 network without hidden layers that balances CartPole."""
    return {
        "network.0.weight": np.array([[0, 0, 0, 0], [0.1, 0.5, 1, 1]], np.float32),
        "network.0.bias": np.zeros(2, np.float32),
    }


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Return a function that registers an environment for the length of one test."""
    names: list[str] = []

    def add(creator: Callable[..., gymnasium.Env], **kwargs: object) -> str:
        names.append(f"ForThisTest{len(names)}-v0")
        gymnasium.register(names[-1], entry_point=creator, **kwargs)
        return names[-1]

    yield add
    for name in names:
        del gymnasium.registry[name]
