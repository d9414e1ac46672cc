"""The returns of the networks of a report: what agreement with another network does not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from engine.errors import StageError
from engine.seeding import Purpose, episode_seeds, key, stream
from engine.stages.networks import Network
from engine.stages.validation.role_checks import non_finite_tensor
from populations.network import NetworkSpec
from populations.population import Record

if TYPE_CHECKING:  # these import gymnasium, which not every stage needs
    from engine.playing import Evaluation, Policy, StackedPolicy, TaskSpec

RESAMPLES = 2000
"""Bootstrap samples behind an interval."""
CHUNK = 1_000_000
"""Numbers that are drawn at once for the bootstrap."""
INTERVAL = f"95 % percentile bootstrap of the mean over episodes, {RESAMPLES} resamples"
ENSEMBLE = "ensemble"
NO_ENVIRONMENT = "no environment is known: no sidecar names one; give --env to play episodes"


def play_roles(
    roles: Mapping[str, Network],
    environment_id: str | None,
    episodes: int = 100,
    seed: int = 0,
    ensemble: Sequence[str] = (),
    reason: str = NO_ENVIRONMENT,
    max_episode_steps: int | None = None,
) -> dict[str, Any]:
    """Let networks play greedily, all of them the same episodes, and summarize their returns.

    The episodes are those of a purpose of their own: no network is trained, or chosen among
    others, on them, and the same seed always stands for the same ones.

    Args:
        roles: The networks by name, of any widths.
        environment_id: Gymnasium id of what they play, None where it is not known.
        episodes: Episodes of each network.
        seed: What the seeds of the episodes are drawn from.
        ensemble: Names of the roles whose mean Q-value plays as another role, ``ensemble``; empty
            for none.
        reason: Why there is no environment, where there is none.
        max_episode_steps: Steps after which an episode is cut off; None for the environment's own
            limit.

    Returns:
        ``environment``, and without one only the ``reason``. Else ``episodes``, ``seed``,
        ``interval`` (what kind they are), ``max_episode_steps`` and ``roles``: for each ``mean``,
        ``sem``, ``ci95`` ``[low, high]``, ``min``, ``max``, ``episodes`` and
        ``full_length_share``, the share of its episodes that lasted to the time limit. A network
        that holds NaN has a ``mean`` of None, and a ``reason``.

    Raises:
        StageError: A network does not fit the environment, or there is no episode.
        TaskError: The environment is unknown or cannot be played.
    """
    if environment_id is None:
        return {"environment": None, "reason": reason}
    if episodes < 1:
        raise StageError(f"--episodes must be at least 1, not {episodes}")
    from engine.config import EnvironmentConfig
    from engine.playing import describe, evaluate

    limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    environment = EnvironmentConfig(id=environment_id, kwargs=limit)
    task = describe(environment)
    for name, network in roles.items():
        _check_fits(name, network, task)
    problems = {name: _problem(name, network) for name, network in roles.items()}
    players = _players({name: roles[name] for name in roles if problems[name] is None})
    if ensemble:
        member_problems = [problems[name] for name in ensemble]
        problems[ENSEMBLE] = next((problem for problem in member_problems if problem), None)
        if problems[ENSEMBLE] is None:
            players.append(([ENSEMBLE], MeanOfNetworks.of([roles[name] for name in ensemble])))
    seeds = episode_seeds(key(seed, Purpose.RETURNS), episodes)
    results: dict[str, dict[str, Any]] = {
        name: {"mean": None, "reason": problem} for name, problem in problems.items()
    }
    with threadpool_limits(1):
        for names, policy in players:
            played = evaluate(environment, policy, seeds)
            for row, name in enumerate(names):
                results[name] = _summary(played, row, task.max_episode_steps, seed)
    if ensemble:
        results[ENSEMBLE]["members"] = list(ensemble)
    return {
        "environment": environment_id,
        "episodes": episodes,
        "seed": seed,
        "interval": INTERVAL,
        "max_episode_steps": task.max_episode_steps,
        "roles": results,
    }


def bootstrap_interval(returns: NDArray[np.float64], rng: np.random.Generator) -> list[float]:
    """Return the 95 % percentile bootstrap interval ``[low, high]`` of the mean.

    It never leaves the range of what was seen, which suits returns that end at a limit.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.

    Args:
        returns: One number per episode, ``(E,)``.
        rng: What the resamples are drawn from.
    """
    n = len(returns)
    at_once = max(1, CHUNK // n)
    means: list[NDArray[np.float64]] = []
    for first in range(0, RESAMPLES, at_once):
        drawn = rng.integers(n, size=(min(at_once, RESAMPLES - first), n))
        means.append(returns[drawn].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return [float(low), float(high)]


class MeanOfNetworks:
    """One player that is greedy on the mean Q-value of several networks of any widths.

    Args:
        networks: One stack of one network for each member.

    Raises:
        ValueError: There is no member.
    """

    n_networks = 1

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Self:
        """Return the player of some networks."""
        from engine.playing import StackedPolicy

        return cls([StackedPolicy(network.spec, [network.weights]) for network in networks])

    def __init__(self, networks: Sequence[StackedPolicy]) -> None:
        if not networks:
            raise ValueError("expected at least one network")
        self._networks = tuple(networks)

    @property
    def n_actions(self) -> int:
        """Number of actions, A."""
        return self._networks[0].n_actions

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the action with the highest mean Q-value, the lowest one of equals; ``(1, L)``."""
        values = [network.q_values(observations) for network in self._networks]  # (1, L, A) each
        actions: NDArray[np.intp] = np.mean(values, axis=0, dtype=np.float64).argmax(axis=2)
        return actions

    def select(self, indices: NDArray[np.intp]) -> Self:
        """Return the player itself; its members are not players."""
        if indices.tolist() != [0]:
            raise ValueError(f"an ensemble is one player, number 0, not {indices.tolist()}")
        return self


def _players(roles: Mapping[str, Network]) -> list[tuple[list[str], Policy]]:
    """Return the names and the stack of the roles of each architecture."""
    from engine.playing import StackedPolicy

    by_spec: dict[NetworkSpec, list[str]] = {}
    for name, network in roles.items():
        by_spec.setdefault(network.spec, []).append(name)
    return [
        (names, StackedPolicy(spec, [roles[name].weights for name in names]))
        for spec, names in by_spec.items()
    ]


def _summary(played: Evaluation, row: int, limit: int, seed: int) -> dict[str, Any]:
    returns = played.returns[row]
    record = Record.of(returns)
    return {
        "mean": record.mean,
        "sem": record.sem,
        "ci95": bootstrap_interval(returns, stream(key(seed, Purpose.RETURNS, 1))),
        "min": record.low,
        "max": record.high,
        "episodes": record.episodes,
        "full_length_share": float((played.lengths[row] >= limit).mean()),
    }


def _problem(name: str, network: Network) -> str | None:
    tensor = non_finite_tensor(network)
    return None if tensor is None else f"{name}: {tensor} holds NaN or infinity"


def _check_fits(name: str, network: Network, task: TaskSpec) -> None:
    spec = network.spec
    n_inputs = int(np.prod(task.observation_shape))
    if (spec.n_inputs, spec.n_actions) != (n_inputs, task.n_actions):
        raise StageError(
            f"{task.id} has {n_inputs} inputs and {task.n_actions} actions, but {name} has "
            f"{spec.n_inputs} and {spec.n_actions}; give --env the one it was trained for"
        )
