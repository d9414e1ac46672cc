"""K networks play E episodes each: the returns that fitness is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import EnvironmentConfig
from engine.errors import TaskError
from engine.playing.environments import Lanes, make_lanes
from engine.playing.policies import Policy
from engine.playing.visits import Visits
from populations.population import LARGEST_RETURN

COMPACT_AT = 1 / 8
"""Share of the networks in the stack that must be done before they are taken out of it."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of the episodes of K networks.

    Attributes:
        returns: Undiscounted reward sum of each episode, ``(K, E)``.
        lengths: Steps of each episode, ``(K, E)``.
        utilization: Share of the stepped lane-steps that belong to an episode, in ``(0, 1]``; the
            others were spent by lanes that had nothing left to play.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.intp]
    utilization: float


def evaluate(environment: EnvironmentConfig, policy: Policy, seeds: Sequence[int]) -> Evaluation:
    """Let every network of a policy play one episode on each seed.

    A network has ``environment.lanes`` lanes, also where there are fewer episodes: the shapes of
    the matmuls, and with them the last bits, depend neither on the progress nor on the number of
    episodes. A lane that is through takes the network's next episode.

    Args:
        environment: The task.
        policy: The networks; it can be used again afterwards.
        seeds: Seed of each episode, the same ones for all networks.

    Returns:
        Returns and lengths, whose row for one network depends on no other network, and whose
        first columns do not depend on the later ones.

    Raises:
        TaskError: The environment cannot be played, or gives rewards that are no numbers.
        ValueError: There is no seed.
    """
    return _Match(environment, policy, seeds).play(None)


def play(
    environment: EnvironmentConfig, policy: Policy, seeds: Sequence[int]
) -> tuple[Evaluation, tuple[NDArray[np.float32], ...]]:
    """Evaluate a policy and return also what each network saw.

    Args:
        environment: The task.
        policy: The networks; it can be used again afterwards.
        seeds: Seed of each episode, the same ones for all networks.

    Returns:
        The evaluation, and for each network the observations that it acted on,
        ``(sum of lengths, n_inputs)``, ordered by episode and step.

    Raises:
        TaskError: The environment cannot be played.
        ValueError: There is no seed.
    """
    visits = Visits()
    evaluation = _Match(environment, policy, seeds).play(visits)
    return evaluation, visits.by_network(policy.n_networks)


class _Match:
    """One evaluation under way.

    Rows are the networks still in the stack, ``k`` of them; lanes are flat, ``k * L``, those of
    one network side by side.
    """

    def __init__(
        self, environment: EnvironmentConfig, policy: Policy, seeds: Sequence[int]
    ) -> None:
        if not seeds:
            raise ValueError("expected at least one episode seed")
        self._seeds = np.array(seeds, dtype=object)  # Python's own int is what reset() takes
        self._name = environment.id
        self._policy = policy
        self._lanes_each = environment.lanes
        self._lanes: Lanes = make_lanes(environment, policy.n_networks * environment.lanes)
        shape = (policy.n_networks, len(seeds))
        self._returns = np.zeros(shape)
        self._lengths = np.zeros(shape, dtype=np.intp)
        self._networks = np.arange(shape[0])  # (k,) which network a row is
        self._next = np.zeros(shape[0], dtype=np.intp)  # (k,) first episode not yet begun
        self._done = np.zeros(shape[0], dtype=np.intp)  # (k,) episodes that are over
        n_lanes = self._lanes.n_lanes
        self._playing = np.zeros(n_lanes, dtype=np.bool_)
        self._episode = np.zeros(n_lanes, dtype=np.intp)
        self._began = np.zeros(n_lanes, dtype=np.intp)  # step at which the episode began
        self._sum = np.zeros(n_lanes)  # rewards of the episode so far

    def play(self, visits: Visits | None) -> Evaluation:
        """Play all episodes."""
        step = stepped = 0
        try:
            self._begin(np.arange(self._lanes.n_lanes), step)
            while len(self._networks):
                actions = self._act(visits, step)
                rewards, terminated, truncated = self._lanes.step(actions, self._playing)
                self._sum += rewards
                step += 1
                stepped += self._lanes.n_lanes
                ended = np.flatnonzero(terminated | truncated)
                if len(ended):
                    self._finish(ended, step)
                    self._begin(ended, step)
                    self._compact()
        finally:
            self._lanes.close()
        if not np.isfinite(self._returns).all():
            raise TaskError(f"{self._name} gave a reward that is NaN or infinite")
        if (np.abs(self._returns) > LARGEST_RETURN).any():
            raise TaskError(
                f"{self._name} gave a return of {np.abs(self._returns).max():g}; "
                f"expected at most {LARGEST_RETURN:g}: scale its rewards down"
            )
        return Evaluation(self._returns, self._lengths, int(self._lengths.sum()) / stepped)

    def _act(self, visits: Visits | None, step: int) -> NDArray[np.intp]:
        """Choose the action of each lane, and note what the playing ones see."""
        observations = self._lanes.observations
        if visits is not None:
            lanes = np.flatnonzero(self._playing)
            networks = self._networks[lanes // self._lanes_each]
            steps = step - self._began[lanes]
            visits.add(observations[lanes], networks, self._episode[lanes], steps)
        stacked = observations.reshape(len(self._networks), self._lanes_each, -1)
        return self._policy.act(stacked).reshape(-1)

    def _begin(self, lanes: NDArray[np.intp], step: int) -> None:
        """Give each of the lanes, which are sorted, the next episode of its network if any."""
        rows = lanes // self._lanes_each
        wanted = np.bincount(rows, minlength=len(self._networks))
        first_of_row = np.cumsum(wanted) - wanted
        episodes = self._next[rows] + np.arange(len(lanes)) - first_of_row[rows]
        n_episodes = len(self._seeds)
        left = episodes < n_episodes
        self._next = np.minimum(self._next + wanted, n_episodes)
        lanes, episodes = lanes[left], episodes[left]
        if len(lanes):
            self._lanes.start(lanes, self._seeds[episodes].tolist())
        self._playing[lanes] = True
        self._episode[lanes] = episodes
        self._began[lanes] = step
        self._sum[lanes] = 0.0

    def _finish(self, lanes: NDArray[np.intp], step: int) -> None:
        """Write down the episodes that have just ended in the given lanes."""
        rows = lanes // self._lanes_each
        networks, episodes = self._networks[rows], self._episode[lanes]
        self._returns[networks, episodes] = self._sum[lanes]
        self._lengths[networks, episodes] = step - self._began[lanes]
        self._playing[lanes] = False
        self._done += np.bincount(rows, minlength=len(self._networks))

    def _compact(self) -> None:
        """Take the networks that are done out of the stack, once there are enough of them."""
        over = self._done == len(self._seeds)
        n_over = int(over.sum())
        if n_over == 0 or n_over < COMPACT_AT * len(over):
            return
        rows = np.flatnonzero(~over)
        self._networks, self._next, self._done = (
            self._networks[rows],
            self._next[rows],
            self._done[rows],
        )
        if len(rows) == 0:
            return
        lanes = np.flatnonzero(np.repeat(~over, self._lanes_each))
        self._policy = self._policy.select(rows)
        self._lanes.keep(lanes)
        self._playing, self._episode = self._playing[lanes], self._episode[lanes]
        self._began, self._sum = self._began[lanes], self._sum[lanes]
