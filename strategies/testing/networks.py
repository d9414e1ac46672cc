"""Small networks that operators are tried on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec

SPECS = (
    NetworkSpec((4,), (), 2),
    NetworkSpec((4,), (5,), 3),
    NetworkSpec((3,), (6, 4), 2, norm="layer"),
    NetworkSpec((4,), (4, 4), 4, norm="layer", dropout_slots=True),
    NetworkSpec((2, 3), (5, 1, 3), 1, dropout_slots=True),
)
"""Linear to three hidden layers, square and not, with and without LayerNorm and Dropout slots."""

N_STATES = 40
SEEDS = (0, 1, 2)


def describe(spec: NetworkSpec) -> str:
    """Return an architecture in a few words, ``4-5-3 with LayerNorm``."""
    sizes = "-".join(map(str, (spec.n_inputs, *spec.hidden, spec.n_actions)))
    extras = ["LayerNorm"] * (spec.norm == "layer") + ["Dropout slots"] * spec.dropout_slots
    return f"a network {sizes}{' with ' if extras else ''}{' and '.join(extras)}"


def random_weights(spec: NetworkSpec, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Return float32 tensors, every number drawn from ``N(0, 1)``."""
    return {name: rng.standard_normal(s, dtype=np.float32) for name, s in spec.shapes.items()}


def random_states(spec: NetworkSpec, seed: int) -> NDArray[np.float32]:
    """Return flattened observations, ``(N_STATES, n_inputs)``, read-only, from ``N(0, 1)``."""
    rng = np.random.default_rng([seed, 1])
    states = rng.standard_normal((N_STATES, spec.n_inputs), dtype=np.float32)
    states.setflags(write=False)
    return states


def silence_units(spec: NetworkSpec, weights: dict[str, NDArray[np.float32]]) -> None:
    """Make the first unit of each hidden layer one that reads nothing and is never above 0."""
    for layer in spec.units:
        for name, _ in layer.incoming:
            weights[name][0] = 0
