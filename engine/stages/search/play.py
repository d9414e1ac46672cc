"""The episodes that children of a search are chosen by; they are none of those of reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.one_thread import one_thread
from engine.seeding import Purpose, episode_seeds, key
from engine.stages.networks import Network


def episode_returns(
    networks: Sequence[Network], environment_id: str, episodes: int, seed: int
) -> NDArray[np.float64]:
    """Let networks of one architecture play greedily, all of them the same episodes.

    Args:
        networks: K networks.
        environment_id: Gymnasium id.
        episodes: Episodes of each.
        seed: What the seeds of the episodes are drawn from.

    Returns:
        Undiscounted returns ``(K, episodes)``; a row depends on no other network.
    """
    from engine.config import EnvironmentConfig
    from engine.playing import StackedPolicy, evaluate

    policy = StackedPolicy(networks[0].spec, [network.weights for network in networks])
    seeds = episode_seeds(key(seed, Purpose.EPISODES), episodes)
    with one_thread():
        return evaluate(EnvironmentConfig(id=environment_id), policy, seeds).returns
