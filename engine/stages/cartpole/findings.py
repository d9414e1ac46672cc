"""What a run on CartPole comes to, in plain sentences, which limits alone do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.stages.cartpole.parent_settings import ENVIRONMENT, STEPS_PER_EPISODE
from engine.stages.cartpole.tuning import CHILD, COPY, RANDOM
from engine.stages.networks import Network
from engine.stages.state_sets import States

FAR_BELOW = 0.5
"""A mean return below this share of what there is to get is called poor."""


def warnings(
    players: Mapping[str, Network],
    heldout: States,
    returns: Mapping[str, Any],
    child: str = CHILD,
) -> list[str]:
    """Return what makes limits that are kept worth little: poor players, and constant ones.

    Args:
        players: All networks by name.
        heldout: Held-out states, ``(N, n_inputs)``.
        returns: What they were played for, of :func:`play_roles`.
        child: Name of the child.
    """
    found = []
    means = {
        name: played["mean"]
        for name, played in returns["roles"].items()
        if played["mean"] is not None
    }
    best = max(means.values(), default=0.0)
    if best < FAR_BELOW * STEPS_PER_EPISODE:
        found.append(
            f"no network plays well: the best mean return is {best:.1f}, where {ENVIRONMENT} "
            f"offers {STEPS_PER_EPISODE}; train the parents longer, or give others"
        )
    elif means.get(child, 0.0) < FAR_BELOW * best:
        found.append(
            f"the child plays badly: its mean return is {means.get(child, 0.0):.1f}, where the "
            f"best network has {best:.1f}"
        )
    constant = [
        name
        for name, network in players.items()
        if len(set(network.q_values(heldout).argmax(axis=1).tolist())) == 1
    ]
    if constant:
        found.append(
            f"one action in all {len(heldout)} held-out states: {', '.join(constant)}; agreement "
            "with such a network tells nothing"
        )
    return found


def crossing(returns: Mapping[str, Any]) -> str:
    """Return whether the child plays better than what was fine-tuned alike without crossing.

    One network plays better than another one if its 95 % interval lies above the other's.

    Args:
        returns: What the networks were played for, of :func:`play_roles`; with the controls.
    """
    child, *controls = (returns["roles"][name] for name in (CHILD, COPY, RANDOM))
    if any(played["mean"] is None for played in (child, *controls)):
        return "what crossing is worth is not known, as not every network could play"
    means = [f"{played['mean']:.1f}" for played in (child, *controls)]
    low, high = child["ci95"]
    if all(low > control["ci95"][1] for control in controls):
        verdict = "crossing helped here"
    elif any(high < control["ci95"][0] for control in controls):
        verdict = "crossing did harm here"
    else:
        verdict = "crossing did not help here"
    return (
        f"fine-tuned alike, the child returns {means[0]}, a copy of student A {means[1]} and a "
        f"random network {means[2]}: {verdict}"
    )
