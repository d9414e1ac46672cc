"""What is compared: tasks and their half-trained teachers, operators, and how children are made."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.config import RunConfig
from strategies.crossover import crossovers
from strategies.operator import CrossoverOperator

REGIMES = ("independent", "shared")
"""Where students start: each from its own random weights, or all from one distilled ancestor."""
ALIGNMENTS = ("none", "activations")
CONTROLS = ("fresh", "clone")
"""Operators that inherit nothing, and nothing but the fitter parent."""
# All teachers stop before they have learned everything, so that parents have head-room.
TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"steps": [30_000, 24_000, 16_000, 10_000]},
    "LunarLander-v3": {
        "steps": [400_000, 250_000, 150_000, 100_000],
        "lanes": 64,
        "rollout": 32,
        "minibatches": 16,
        "gamma": 0.995,
        "checkpoints": 10,
        "checkpoint_episodes": 32,
    },
}
QUICK = {"steps": [6_000, 5_000, 4_000, 3_000], "checkpoints": 2, "checkpoint_episodes": 4}


@dataclass(frozen=True)
class Job:
    """One task with one seed: what is measured at a time, and kept when a study stops.

    Attributes:
        task: Gymnasium id.
        seed: Seed of the run that teachers and students come from.
        episodes: Held-out episodes that every network plays.
        operators: Names of the operators.
        quick: Whether teachers are barely trained, for a test of this script.
    """

    task: str
    seed: int
    episodes: int
    operators: tuple[str, ...]
    quick: bool = False

    @property
    def name(self) -> str:
        """Folder of this job within that of the study."""
        return f"{self.task}/seed-{self.seed}"

    def config(self, regime: str) -> RunConfig:
        """Return the run whose teachers, states and students these are."""
        settings = {
            "seed": self.seed,
            "environment": {"id": self.task},
            "teachers": {"training": QUICK if self.quick else TASKS[self.task]},
            "distillation": {"students": 4, "ancestor": regime},
            "evaluation": {"holdout_episodes": self.episodes},
        }
        return RunConfig.model_validate(settings)


def two_parent(name: str) -> CrossoverOperator:
    """Return an operator with its defaults, for two parents where that can be chosen."""
    choosable = "n_parents" in inspect.signature(crossovers.get(name)).parameters
    return crossovers.create(name, {"n_parents": 2} if choosable else {})


def built_in() -> tuple[str, ...]:
    """Return the names of all operators that come with cultivar, the controls last."""
    ours = [
        name
        for name in crossovers.available()
        if crossovers.get(name).__module__.startswith("strategies.crossover.")
    ]
    return (*(name for name in ours if name not in CONTROLS), *CONTROLS)


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the operators to compare: those named, and the controls in any case."""
    if names is None:
        return built_in()
    return (*(name for name in names if name not in CONTROLS), *CONTROLS)
