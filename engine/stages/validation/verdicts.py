"""What all validators share: the times of the roles, and what the checks add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.stages.networks import Network
from engine.stages.validation.thresholds import Check
from engine.stages.validation.timing import Latency, LatencySettings, latencies


def verdict_on(checks: Sequence[Check], problem: str | None) -> dict[str, Any]:
    """Return the last keys of a report.

    Args:
        checks: Every metric that has a limit.
        problem: What keeps a network from giving numbers at all, None where nothing does.

    Returns:
        ``checks``; ``failed``, the names of those that did not pass; ``reason``, the problem or
        else the failed checks in words, None where there are none; and ``passed``, whether there
        is neither a problem nor a failed check.
    """
    failed = [check for check in checks if not check.passed]
    reason = problem or "; ".join(check.describe() for check in failed) or None
    return {
        "checks": [check.to_dict() for check in checks],
        "failed": [check.name for check in failed],
        "reason": reason,
        "passed": reason is None,
    }


def latencies_of(
    roles: Mapping[str, Network],
    states: NDArray[np.float32],
    settings: LatencySettings,
    problem: str | None,
) -> dict[str, Latency]:
    """Time all roles on the first state, or none of them where one gives no numbers."""
    if problem is not None:
        settings = replace(settings, repeats=0, warmup=0)
    return latencies(roles, states[:1], settings)


def about_states(states: NDArray[np.float32]) -> dict[str, Any]:
    """Return what can be said of the states alone; the record of their source is added to it."""
    n_states, n_inputs = states.shape
    return {"count": n_states, "n_states": n_states, "input_dim": n_inputs}
