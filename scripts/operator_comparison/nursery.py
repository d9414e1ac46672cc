"""Teachers and students of one job: what the children of the comparison are bred from."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.breeding import Context, breed_batch
from engine.config import RunConfig
from engine.founders import ancestor_plan, student_plans
from engine.learning.teachers import train_teachers
from engine.playing.environments import describe
from engine.playing.evaluation import evaluate
from engine.playing.policies import StackedPolicy
from engine.preparation import Prepared, prepare
from engine.run_directory import RunDirectory
from operator_comparison.tasks import Job
from populations.genome import Genome
from populations.plans import ChildPlan
from populations.storage import save_weights


@dataclass(frozen=True)
class Student:
    """A student, by what is needed to breed from it.

    Attributes:
        number: Number of the student, which is that of its teacher.
        genome: The student.
        fitness: Mean return over the episodes that parents are ordered by.
        teacher_weights: Weights of the teachers in what it imitated.
    """

    number: int
    genome: Genome
    fitness: float
    teacher_weights: tuple[float, ...]


@dataclass(frozen=True)
class Nursery:
    """The students of one job and regime.

    Attributes:
        config: Their run.
        context: What their run's tasks share.
        students: Fitter first.
        ancestor: Whose order of hidden units all of them keep, if any.
        best_teacher: Number of the teacher that is best on the episodes that order parents.
    """

    config: RunConfig
    context: Context
    students: tuple[Student, ...]
    ancestor: Genome | None
    best_teacher: int

    @property
    def genomes(self) -> dict[str, Genome]:
        """Students and ancestor by id."""
        known = [student.genome for student in self.students]
        if self.ancestor is not None:
            known.append(self.ancestor)
        return {genome.id: genome for genome in known}


def trained_teachers(job: Job, folder: Path, tell: Callable[[str], None]) -> list[Path]:
    """Return the files of a job's teachers; train them unless that was done before."""
    config = job.config("shared")
    about = {
        "seed": job.seed,
        "environment": config.environment.model_dump(mode="json"),
        "teachers": config.teachers.model_dump(mode="json"),
    }
    record = folder / "about.json"
    files = [
        folder / f"teacher-{i}.safetensors" for i in range(len(config.teachers.training.steps))
    ]
    if record.is_file() and json.loads(record.read_text()) == about:
        return files
    folder.mkdir(parents=True, exist_ok=True)
    tell(f"{job.name}: training {len(files)} teachers")
    teachers = train_teachers(config, describe(config.environment))
    for file, teacher in zip(files, teachers, strict=True):
        extra = {"source": teacher.source, "steps": teacher.steps}
        save_weights(file, teacher.spec, teacher.weights, extra)
    record.write_text(json.dumps(about, indent=1) + "\n")
    return files


def prepared(job: Job, folder: Path, files: list[Path]) -> Prepared:
    """Return teachers, states and targets, as a run of the engine has them."""
    teachers = {"files": [str(file) for file in files]}
    config = RunConfig.model_validate({**job.config("shared").model_dump(), "teachers": teachers})
    if folder.exists():  # states and targets take a second; nobody needs to go on with them
        shutil.rmtree(folder)
    with RunDirectory.open(folder, config) as directory:
        return prepare(config, directory, lambda _: None)


def nursery(job: Job, regime: str, ready: Prepared) -> Nursery:
    """Distil the students of one regime, as generation 0 of a run does."""
    config, context = job.config(regime), ready.context
    n_teachers = len(ready.teachers)
    ancestor = None
    genomes: dict[str, Genome] = {}
    if regime == "shared":
        (born,) = breed_batch(context, [ancestor_plan(config, n_teachers)], {})
        if born.genome is None:
            raise RuntimeError(f"{job.name}: there is no ancestor: {born.reason}")
        ancestor, genomes = born.genome, {born.genome.id: born.genome}
    plans: list[ChildPlan] = student_plans(
        config, n_teachers, None if ancestor is None else ancestor.id
    )
    results = breed_batch(context, plans, genomes)
    students = [
        Student(
            plan.index,
            result.genome,
            float(np.mean(result.returns)),
            plan.finetune.teacher_weights,
        )
        for plan, result in zip(plans, results, strict=True)
        if result.genome is not None
    ]
    students.sort(key=lambda student: (-student.fitness, student.number))
    if len(students) < 2:
        raise RuntimeError(f"{job.name}: fewer than two students of the regime {regime} can play")
    return Nursery(config, context, tuple(students), ancestor, _best_teacher(ready))


def finetune_settings(config: RunConfig) -> tuple[float, float]:
    """Return learning rate and temperature in the (geometric) middle of their ranges."""
    low, high = config.finetune.learning_rate
    cold, hot = config.finetune.temperature
    return math.sqrt(low * high), math.sqrt(cold * hot)


def _best_teacher(ready: Prepared) -> int:
    context, teachers = ready.context, ready.teachers
    policy = StackedPolicy(teachers[0].spec, [teacher.weights for teacher in teachers])
    played = evaluate(context.environment, policy, context.seeds("children", 0))
    return int(played.returns.mean(axis=1).argmax())
