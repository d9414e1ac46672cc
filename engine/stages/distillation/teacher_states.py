"""The states that students train on: of a file, of the teachers' environment, or synthetic.

A student of a network that plays learns from what that network sees, never from normally
distributed rows: those agree with no environment (the angles of CartPole stay within 0.21).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from engine.errors import StageError
from engine.seeding import Purpose, episode_seeds, key, stream
from engine.stages.replay import replay_states
from engine.stages.roles import Role
from engine.stages.state_sets import (
    MIN_HELDOUT,
    States,
    StateSet,
    split_states,
    training_states,
)

SYNTHETIC_STATES = 1000
PLAYED_STATES = 5000
"""How many states are trained on where nobody says: made up, or seen in an environment."""
EPISODES = 32
EPSILON = 0.1
"""Episodes that each teacher plays for its states, and its share of random actions in them."""
NO_ENVIRONMENT = (
    "no environment is known, so states are drawn at random, which a trained network has never "
    "seen; give --env, for example --env CartPole-v1, or --states-file"
)


def environment_of_teachers(teachers: Sequence[Role], given: str | None) -> str | None:
    """Return the environment that students are for.

    Args:
        teachers: Whose sidecars may name one.
        given: What the user named; comes first.

    Returns:
        Its id, or None where nobody names one.

    Raises:
        StageError: The sidecars name different ones, or the teachers do not fit the given one.
        TaskError: The given one is unknown or cannot be played.
    """
    if given is not None:
        _check_fits(given, teachers)
        return given
    named = {
        str(teacher.sidecar["environment"]): teacher.name
        for teacher in teachers
        if teacher.sidecar.get("environment")
    }
    if len(named) > 1:
        told = " and ".join(f"{name} is of {environment}" for environment, name in named.items())
        raise StageError(
            f"{told}; give teachers of one environment, or name the right one by --env"
        )
    return next(iter(named), None)


def states_for_students(
    teachers: Sequence[Role],
    environment: str | None,
    n_states: int | None,
    seed: int,
    states_file: Path | None = None,
    heldout_fraction: float = 0.1,
    tell: Callable[[str], None] = lambda _: None,
) -> StateSet:
    """Return the states that students of some teachers train on, and those put aside.

    They come from ``states_file``; else, where there is an environment, from the replay files that
    the sidecars of all teachers name, or from episodes that the teachers play now; else they are
    synthetic.

    Args:
        teachers: Networks of the same inputs and actions, at least one.
        environment: What they play, None where that is not known.
        n_states: Rows to train on; None for all of a file, 5,000 of an environment, or 1,000
            synthetic ones.
        seed: Of drawing, splitting and playing.
        states_file: A ``.npy`` file of states.
        heldout_fraction: Share that is put aside, in ``(0, 1)``.
        tell: Is told where the states come from.

    Raises:
        StageError: The states cannot be used, or there are too few.
        TaskError: The environment is unknown or cannot be played.
    """
    n_inputs = teachers[0].network.spec.n_inputs
    if states_file is not None or environment is None:
        if states_file is None:
            n_states = n_states or SYNTHETIC_STATES
            if not all(teacher.sidecar for teacher in teachers):
                tell(NO_ENVIRONMENT)
        chosen = training_states(n_states, n_inputs, seed, states_file, heldout_fraction)
    else:
        n_states = n_states or PLAYED_STATES
        found = [replay_states(teacher) for teacher in teachers]
        replays = [replay for replay in found if replay is not None]
        if len(replays) == len(teachers):
            rows = np.concatenate([seen for seen, _ in replays])
            source = f"{environment}: {', '.join(name for _, name in replays)}"
        else:
            n_heldout = math.ceil(n_states * heldout_fraction / (1 - heldout_fraction))
            size = n_states + max(n_heldout, MIN_HELDOUT)
            rows = played_states(teachers, environment, size, seed)
            names = ", ".join(teacher.name for teacher in teachers)
            source = f"{environment}: played by {names}"
        chosen = split_states(rows, n_states, seed, source, heldout_fraction)
    tell(chosen.describe(n_states))
    return chosen


def played_states(
    teachers: Sequence[Role],
    environment: str,
    size: int,
    seed: int,
    episodes: int = EPISODES,
    epsilon: float = EPSILON,
) -> States:
    """Let teachers play, now and then at random, and return what they saw.

    Each gives an equal share, evenly spread over its episodes; one that saw less gives all it has,
    and the others make up for it.

    Args:
        teachers: Networks that fit the environment; all play the same episodes.
        environment: Its gymnasium id.
        size: How many states are wanted.
        seed: Of the episodes and of the random actions.
        episodes: How many each teacher plays.
        epsilon: Share of random actions.

    Returns:
        States ``(N, n_inputs)``, at most ``size``, teacher by teacher.

    Raises:
        StageError: A teacher does not fit the environment, or they saw fewer than 64 states.
        TaskError: The environment is unknown or cannot be played.
    """
    from engine.config import EnvironmentConfig
    from engine.learning.states import MIN_STATES, even_shares
    from engine.playing import EpsilonGreedy, StackedPolicy, play

    _check_fits(environment, teachers)
    seeds = episode_seeds(key(seed, Purpose.STATES), episodes)
    seen = []
    for number, teacher in enumerate(teachers):
        greedy = StackedPolicy(teacher.network.spec, [teacher.network.weights])
        rngs = [stream(key(seed, Purpose.STATES, number))]
        player = EpsilonGreedy(greedy, epsilon, rngs)
        _, (visited,) = play(EnvironmentConfig(id=environment), player, seeds)
        seen.append(visited)
    shares = even_shares([len(visited) for visited in seen], size)
    chosen = [
        visited[np.arange(share) * len(visited) // max(share, 1)]
        for visited, share in zip(seen, shares, strict=True)
    ]
    states: States = np.concatenate(chosen)
    if len(states) < MIN_STATES:
        raise StageError(
            f"expected at least {MIN_STATES} states, but {len(teachers)} teachers saw "
            f"{len(states)} of {environment} in {episodes} episodes each; raise --n-states, or "
            "give a --states-file"
        )
    return states


def _check_fits(environment: str, teachers: Sequence[Role]) -> None:
    from engine.config import EnvironmentConfig
    from engine.playing import describe

    task = describe(EnvironmentConfig(id=environment))
    sizes = int(np.prod(task.observation_shape)), task.n_actions
    for teacher in teachers:
        spec = teacher.network.spec
        if (spec.n_inputs, spec.n_actions) != sizes:
            raise StageError(
                f"{environment} has {sizes[0]} inputs and {sizes[1]} actions, but {teacher.name} "
                f"has {spec.n_inputs} and {spec.n_actions}; give --env the one it was trained for, "
                "or --input-dim and --output-dim where no teacher is given"
            )
