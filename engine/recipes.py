"""What children are made with, drawn as the configuration says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.config import FineTuneConfig, ImitationConfig, RunConfig
from engine.errors import ConfigError
from engine.seeding import Purpose, key, stream
from populations.manager import Recipe
from populations.plans import ChildPlan, FineTune, Target
from strategies.crossover import crossovers
from strategies.crossover.clone import CloneCrossover
from strategies.crossover.fresh import FreshCrossover
from strategies.errors import StrategyError
from strategies.mutation import Mutation, mutations
from strategies.recipes import Recipe as MixedRecipe
from strategies.recipes import RecipeMix
from strategies.selection import Selection, selections


class ConfiguredRecipes:
    """Draws operators, mutation and training of children from the settings of a run.

    Raises:
        ConfigError: An operator, mutation or parameter is unknown or out of range.
    """

    def __init__(self, config: RunConfig, n_teachers: int) -> None:
        self._finetune = config.finetune
        self._n_teachers = n_teachers
        self._mutation = _mutation(config)
        self._mix = _mix(config)

    def check(self, population: int) -> None:
        """Refuse operators that need more parents than there will be.

        Raises:
            ConfigError: An operator needs more parents than ``population``.
        """
        for recipe in self._mix.recipes:
            if recipe.operator.n_parents > population:
                raise ConfigError(
                    f"{recipe.operator.name} needs {recipe.operator.n_parents} parents, but "
                    f"evolution.population is {population}"
                )

    def draw(self, rng: np.random.Generator) -> Recipe:
        """Return the recipe of one child."""
        recipe = self._mix.draw(rng)
        return Recipe(recipe.operator, recipe.operator.n_parents, recipe.align, self._mutation)

    def finetune(self, parents: Sequence[FineTune], rng: np.random.Generator) -> FineTune:
        """Return how a child is trained, given how its parents were, fitter first."""
        settings = self._finetune
        inherited = parents[0].teacher_weights
        weights = draw_teacher_weights(settings, inherited, self._n_teachers, rng)
        return draw_finetune(settings, settings.target, weights, settings.repair, rng)

    def controls(self) -> Sequence[Recipe]:
        """Return clone + fine-tune and random + fine-tune, both without mutation."""
        return (
            Recipe(CloneCrossover(), CloneCrossover.n_parents, "none", None),
            Recipe(FreshCrossover(), FreshCrossover.n_parents, "none", None),
        )


class RunSeeds:
    """Keys of the random streams of a run's births."""

    def __init__(self, run_seed: int) -> None:
        self._run_seed = run_seed

    def selection(self, generation: int, index: int) -> np.random.Generator:
        """Return the stream that parents and recipe are drawn from."""
        return stream(key(self._run_seed, Purpose.SELECTION, generation, index))

    def birth(self, generation: int, index: int) -> tuple[int, ...]:
        """Return the key of the stream that the child itself is made with."""
        return key(self._run_seed, Purpose.BIRTH, generation, index)


def make_selection(config: RunConfig) -> Selection:
    """Return the selection of a run.

    Raises:
        ConfigError: It is unknown, or a parameter is out of range.
    """
    settings = config.evolution.selection
    try:
        return selections.create(settings.name, settings.params)
    except StrategyError as error:
        raise ConfigError(f"evolution.selection: {error}") from error


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
    kind: str,
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
        kind="ancestor" if kind == "ancestor" else "student",
        generation=0,
        index=index,
        parents=parents,
        fitness=(math.nan,) * len(parents),
        operator=CloneCrossover() if parents else FreshCrossover(),
        align="none",
        mutation=None,
        finetune=draw_finetune(settings, "teachers", teacher_weights, True, rng),
        seed=birth,
        phase=phase,
    )


def draw_finetune(
    settings: ImitationConfig,
    target: Target,
    teacher_weights: tuple[float, ...],
    repair: bool,
    rng: np.random.Generator,
) -> FineTune:
    """Return one network's training: log-uniform draws from the ranges of the settings."""
    return FineTune(
        target=target,
        steps=settings.steps,
        learning_rate=_log_uniform(settings.learning_rate, rng),
        temperature=_log_uniform(settings.temperature, rng),
        hard_weight=settings.hard_weight,
        teacher_weights=teacher_weights,
        repair=repair,
    )


def draw_teacher_weights(
    settings: FineTuneConfig,
    inherited: tuple[float, ...],
    n_teachers: int,
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Return the weights of the teachers in a child's target; they sum to one.

    ``inherit`` multiplies the fitter parent's weights, plus a hundredth so that no teacher is
    lost for good, by log-normal noise; ``random`` is uniform on the simplex.
    """
    if settings.teacher_weights == "uniform":
        weights = np.ones(n_teachers)
    elif settings.teacher_weights == "random":
        weights = rng.dirichlet(np.ones(n_teachers))
    else:
        noise = rng.normal(0, settings.teacher_noise, n_teachers)
        # A common factor cancels out; this one keeps large noise from overflowing.
        weights = (np.array(inherited) + 0.01) * np.exp(noise - noise.max())
    return tuple(float(weight) for weight in weights / weights.sum())


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    low, high = bounds
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _mutation(config: RunConfig) -> Mutation | None:
    settings = config.evolution.mutation
    if settings is None:
        return None
    try:
        return mutations.create(settings.name, settings.params)
    except StrategyError as error:
        raise ConfigError(f"evolution.mutation: {error}") from error


def _mix(config: RunConfig) -> RecipeMix:
    recipes = []
    for number, settings in enumerate(config.evolution.recipes):
        try:
            operator = crossovers.create(settings.operator, settings.params)
        except StrategyError as error:
            raise ConfigError(f"evolution.recipes.{number}: {error}") from error
        recipes.append(MixedRecipe(operator, settings.align, settings.weight))
    return RecipeMix(recipes)
