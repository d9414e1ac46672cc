"""The report of a child of CartPole parents: the validator's, with the limits of the pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.stages.cartpole.limits import ChildLimits
from engine.stages.recombination.family_validation import Found, Judging, validate_family
from engine.stages.state_sets import States


def child_report(
    found: Found,
    heldout: States,
    seed: int,
    limits: ChildLimits,
    returns: Mapping[str, Any],
    include_parent_baseline: bool = True,
) -> dict[str, Any]:
    """Judge a child against its parents on the states that its sidecar says are held out.

    Args:
        found: The networks.
        heldout: These states, ``(N, n_inputs)``.
        seed: What they were chosen with.
        limits: What the child must keep of its parents.
        returns: What the networks were played for.
        include_parent_baseline: Whether the parents are compared with each other, too.

    Returns:
        The report of :func:`engine.stages.recombination.family_validation.validate_family`, with
        ``returns``.
    """
    judging = Judging(
        n_states=len(heldout),
        seed=seed,
        thresholds=limits,
        include_parent_baseline=include_parent_baseline,
        episodes=0,
    )
    report = validate_family(found, judging)
    return {**report, "returns": returns}
