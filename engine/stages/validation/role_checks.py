"""Whether networks can be compared on some states, and what keeps them from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engine.errors import StageError
from engine.one_thread import one_thread
from engine.stages.networks import Network

CHUNK = 8192
"""States of one forward pass; keeps the hidden layers of a wide network small."""


def check_roles(roles: Mapping[str, Network], states: NDArray[np.float32]) -> None:
    """Refuse networks that do not share inputs and actions, and states that they cannot take.

    Widths may differ: a student is compared with its teacher.

    Args:
        roles: The networks by name, at least one.
        states: Should be finite, of shape ``(N, n_inputs)`` with N of at least 1.

    Raises:
        StageError: As said.
    """
    (first_name, first), *others = roles.items()
    for name, other in others:
        if (first.spec.n_inputs, first.spec.n_actions) != (
            other.spec.n_inputs,
            other.spec.n_actions,
        ):
            raise StageError(
                f"{first_name} has {_sizes(first)}, but {name} has {_sizes(other)}; "
                "give networks of one task"
            )
    n_inputs = first.spec.n_inputs
    if states.ndim != 2 or len(states) == 0 or states.shape[1] != n_inputs:
        raise StageError(
            f"expected at least one state of {n_inputs} numbers for {first_name}, "
            f"an array of shape (N, {n_inputs}), not {states.shape}"
        )
    if not np.isfinite(states).all():
        raise StageError("the states hold NaN or infinity; take those rows out")


def non_finite_tensor(network: Network) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, None where none does."""
    for name, tensor in network.weights.items():
        if not np.isfinite(tensor).all():
            return name
    return None


def unusable(roles: Mapping[str, Network], values: Mapping[str, NDArray[np.float32]]) -> str | None:
    """Return in words which network gives no numbers and why, None where all do.

    Args:
        roles: The networks by name.
        values: Their Q-values by the same names, from :func:`all_q_values`.
    """
    reasons = []
    for name, network in roles.items():
        tensor = non_finite_tensor(network)
        if tensor is not None:
            reasons.append(f"{name}: {tensor} holds NaN or infinity")
        elif not np.isfinite(values[name]).all():
            reasons.append(f"{name}: its Q-values overflow, its weights are too large")
    return "; ".join(reasons) or None


def all_q_values(
    roles: Mapping[str, Network], states: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Return the Q-values of every network, ``(N, n_actions)`` each, by name.

    On one thread, so that they are the same bytes on any number of cores. Weights that are no
    numbers give Q-values that are none; see :func:`unusable`.
    """
    with one_thread(), np.errstate(all="ignore"):
        return {
            name: np.concatenate(
                [network.q_values(states[i : i + CHUNK]) for i in range(0, len(states), CHUNK)]
            )
            for name, network in roles.items()
        }


def _sizes(network: Network) -> str:
    return f"{network.spec.n_inputs} inputs and {network.spec.n_actions} actions"
