"""Random streams keyed by run seed, purpose, generation and child; never by worker or batch."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of every recorded run: never reuse one."""

    TEACHER_INIT = 1
    TEACHER_TRAINING = 2
    TEACHER_CHECKPOINTS = 3
    STATES = 4
    EPISODES = 5
    HOLDOUT = 6
    BIRTH = 7
    SELECTION = 8
    MINIBATCHES = 9
    SPLIT = 10
    ANCESTOR = 11
    RETURNS = 12


def key(run_seed: int, purpose: Purpose, *path: int) -> tuple[int, ...]:
    """Return the key of a stream: run seed, purpose, and for example generation and child."""
    return (run_seed, int(purpose), *path)


def stream(key: tuple[int, ...]) -> np.random.Generator:
    """Return the generator of a key; equal keys give equal streams in every process."""
    run_seed, *spawn_key = key
    return np.random.default_rng(np.random.SeedSequence(run_seed, spawn_key=tuple(spawn_key)))


def episode_seeds(key: tuple[int, ...], n_episodes: int) -> tuple[int, ...]:
    """Return ``n_episodes`` distinct environment seeds in ``[0, 2**31)``.

    A longer list starts with the shorter one of the same key.
    """
    rng = stream(key)
    seeds: dict[int, None] = {}
    while len(seeds) < n_episodes:
        seeds[int(rng.integers(2**31))] = None
    return tuple(seeds)
