"""Plans of the networks that have no parents among the genomes: the ancestor and the students."""

from __future__ import annotations

import math
from typing import Literal

from engine.config import RunConfig
from engine.finetune_draws import draw_finetune
from engine.seeding import Purpose, key, stream
from populations.plans import ChildPlan
from strategies.crossover.clone import CloneCrossover
from strategies.crossover.fresh import FreshCrossover


def ancestor_plan(config: RunConfig, n_teachers: int) -> ChildPlan:
    """Return the plan of the shared ancestor: a fresh network that imitates the mean teacher."""
    uniform = (1 / n_teachers,) * n_teachers
    return _founder(
        config, "ancestor", "ancestor", 0, (), uniform, config.distillation.ancestor_steps
    )


def student_plans(config: RunConfig, n_teachers: int, ancestor: str | None) -> list[ChildPlan]:
    """Return the plans of generation 0: each student imitates one teacher.

    Args:
        config: The run.
        n_teachers: Number of teachers.
        ancestor: Id of the genome that all students start from; None for random weights.
    """
    return [
        _founder(
            config,
            "students",
            "student",
            index,
            () if ancestor is None else (ancestor,),
            tuple(float(index % n_teachers == teacher) for teacher in range(n_teachers)),
            config.distillation.steps,
        )
        for index in range(config.distillation.students)
    ]


def _founder(
    config: RunConfig,
    phase: str,
    kind: Literal["ancestor", "student"],
    index: int,
    parents: tuple[str, ...],
    teacher_weights: tuple[float, ...],
    steps: int,
) -> ChildPlan:
    purpose = Purpose.ANCESTOR if kind == "ancestor" else Purpose.BIRTH
    birth = key(config.seed, purpose, 0, index)
    rng = stream((*birth, 1))
    settings = config.distillation.model_copy(update={"steps": steps})
    return ChildPlan(
        kind=kind,
        generation=0,
        index=index,
        parents=parents,
        fitness=(math.nan,) * len(parents),
        operator=CloneCrossover() if parents else FreshCrossover(),
        align="none",
        mutation=None,
        finetune=draw_finetune(settings, teacher_weights, rng),
        seed=birth,
        phase=phase,
    )
