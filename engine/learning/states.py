"""The observations on which students imitate teachers, and what the teachers make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import RunConfig
from engine.errors import StatesError
from engine.learning.fast_mlp import STATES_MULTIPLE
from engine.learning.npy_files import NPY_DAMAGE, check_header, quiet_headers
from engine.learning.qnetwork import StackedQNetwork
from engine.learning.teachers import Teacher
from engine.playing.environments import TaskSpec
from engine.playing.evaluation import play
from engine.playing.policies import EpsilonGreedy, StackedPolicy
from engine.seeding import Purpose, episode_seeds, key, stream
from populations.network import NetworkSpec, Weights
from populations.regular_files import only_regular, size_of

MIN_STATES = 64
"""Fewer states than this say next to nothing about a policy."""
CHUNK = 4096
"""States of one forward pass."""


def collect_states(
    config: RunConfig, task: TaskSpec, teachers: Sequence[Teacher]
) -> NDArray[np.float32]:
    """Let all teachers play, now and then at random, and return what they saw.

    Each teacher gives an equal share of ``config.states.size``, evenly spread over its episodes.
    A teacher that saw less gives all it has, and the others make up for it; if all of them
    together saw less than ``size``, everything is returned.

    Args:
        config: The run.
        task: The task of ``config.environment``.
        teachers: Teachers of one architecture; all play the same episodes.

    Returns:
        States of shape ``(N, n_inputs)``, teacher by teacher, in the order they were seen.

    Raises:
        StatesError: The teachers saw fewer than 64 states.
    """
    settings = config.states
    rngs = [stream(key(config.seed, Purpose.STATES, i)) for i in range(len(teachers))]
    greedy = StackedPolicy(teachers[0].spec, [teacher.weights for teacher in teachers])
    seeds = episode_seeds(key(config.seed, Purpose.STATES), settings.episodes)
    _, seen = play(config.environment, EpsilonGreedy(greedy, settings.epsilon, rngs), seeds)
    shares = even_shares([len(visited) for visited in seen], settings.size)
    chosen = [
        visited[np.arange(share) * len(visited) // max(share, 1)]
        for visited, share in zip(seen, shares, strict=True)
    ]
    states = np.concatenate(chosen)
    if len(states) < MIN_STATES:
        raise StatesError(
            f"the teachers saw only {len(states)} states of {task.id} in {settings.episodes} "
            f"episodes each, but at least {MIN_STATES} are needed; raise states.episodes"
        )
    return states


def even_shares(available: Sequence[int], size: int) -> list[int]:
    """Divide ``size`` among owners as evenly as what each has available permits.

    Returns:
        The share of each owner; together ``min(size, sum(available))``.
    """
    shares = [0] * len(available)
    left = size
    poorest_first = sorted(range(len(available)), key=lambda i: (available[i], -i))
    for n_served, i in enumerate(poorest_first):
        shares[i] = min(available[i], left // (len(available) - n_served))
        left -= shares[i]
    return shares


def load_states(path: Path, n_inputs: int) -> NDArray[np.float32]:
    """Read states from a ``.npy`` file.

    Args:
        path: Array of shape ``(N, n_inputs)``. Other floating-point dtypes than float32 are
            rounded to it, as gymnasium's observations are float32 anyway.
        n_inputs: Numbers in one flattened observation.

    Returns:
        The states, ``(N, n_inputs)``.

    Raises:
        StatesError: The file is missing or damaged, or the array is not one of states.
    """
    expected = f"expected a .npy file with a float32 array of shape (N, {n_inputs})"
    try:
        with open(path, "rb", opener=only_regular) as file:  # a pipe would keep NumPy waiting
            check_header(file, size_of(file))
        # Never unpickles, and checks the declared size against the file before it takes memory.
        with np.errstate(over="raise"), quiet_headers():
            array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise StatesError(f"{path}: {expected}, but there is none") from error
    except NPY_DAMAGE as error:
        raise StatesError(f"{path}: {expected}, but it cannot be read: {error}") from error
    if array.dtype.kind != "f":
        raise StatesError(f"{path}: {expected}, not {array.dtype}")
    if array.ndim != 2 or array.shape[1] != n_inputs:
        raise StatesError(f"{path}: {expected}, not {array.shape}")
    if len(array) < MIN_STATES:
        raise StatesError(f"{path}: expected at least {MIN_STATES} states, not {len(array)}")
    with np.errstate(all="ignore"):  # an overflow becomes infinity and is refused
        states = np.array(array, dtype=np.float32)
    broken = np.flatnonzero(~np.isfinite(states).all(axis=1))
    if len(broken):
        raise StatesError(
            f"{path}: expected finite numbers, but {len(broken)} rows hold NaN or infinity, "
            f"the first one is row {broken[0]}"
        )
    return states


def split_states(
    n_states: int, validation_fraction: float, key: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split states at random into those that are trained on and those that validate.

    Args:
        n_states: Number of states, at least 64.
        validation_fraction: Share that validates, rounded to a multiple of 32: vectorized loops
            over whole multiples give the same bytes whatever the number of networks. At least 32
            states are on either side.
        key: Key of the random stream.

    Returns:
        Sorted indices of the training states and of the validation states.
    """
    blocks = round(n_states * validation_fraction / STATES_MULTIPLE)
    most = (n_states - STATES_MULTIPLE) // STATES_MULTIPLE
    n_validation = min(max(blocks, 1), most) * STATES_MULTIPLE
    order = stream(key).permutation(n_states)
    return np.sort(order[n_validation:]), np.sort(order[:n_validation])


def teacher_values(
    spec: NetworkSpec, weights: Sequence[Weights], states: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the Q-values of T teachers for N states, ``(T, N, n_actions)``."""
    network = StackedQNetwork.from_weights(spec, weights)
    inputs = torch.from_numpy(states)
    with torch.no_grad():
        values = [network.forward(inputs[i : i + CHUNK]) for i in range(0, len(inputs), CHUNK)]
        joined: NDArray[np.float32] = torch.cat(values, dim=1).numpy()
    return joined
