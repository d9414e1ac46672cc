"""What children of a search are ranked by, with how far it may be off by chance.

A score is the mean of one number per state, or per episode. Two candidates are judged on the same
states or episodes, so the error of their difference is that of the mean of paired differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.stages.validation.fidelity import Z_95

PrimaryMetric = Literal["min_agreement", "min_agreement_gain", "return"]
PRIMARY_METRICS: tuple[PrimaryMetric, ...] = get_args(PrimaryMetric)

MEANINGS = {
    "min_agreement": "min(agree_a, agree_b)",
    "min_agreement_gain": "min(agree_a, agree_b) - agreement of the parents with each other",
    "return": "mean return of the episodes",
}


@dataclass(frozen=True, eq=False)
class Score:
    """The primary metric of one candidate.

    Attributes:
        samples: One number per state or episode, float64 ``(N,)``, in an order that all
            candidates share.
    """

    samples: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The metric: the mean of the samples."""
        return float(self.samples.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the metric; NaN for a single sample."""
        return standard_error(self.samples)

    def is_within_noise_of(self, other: Score) -> bool:
        """Tell whether a difference as large as this one may well be chance, at 5 %."""
        differences = self.samples - other.samples
        error = standard_error(differences)
        return (
            not abs(float(differences.mean())) > Z_95 * error if error > 0 else not any(differences)
        )


def standard_error(samples: NDArray[np.float64]) -> float:
    """Return the standard error of a mean; NaN for a single sample."""
    if len(samples) < 2:
        return math.nan
    return float(samples.std(ddof=1) / math.sqrt(len(samples)))


def agreement_score(
    child: NDArray[np.intp], a: NDArray[np.intp], b: NDArray[np.intp], is_gain: bool = False
) -> Score:
    """Return the agreement with the parent that the child agrees with less.

    Args:
        child: The child's action in each state, ``(N,)``.
        a: Actions of parent A.
        b: Actions of parent B.
        is_gain: Whether the agreement of the parents with each other is taken off.
    """
    with_a, with_b = child == a, child == b
    hits = with_a if with_a.sum() <= with_b.sum() else with_b
    samples = hits.astype(np.float64)
    return Score(samples - (a == b) if is_gain else samples)
