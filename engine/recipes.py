"""What children are made with, drawn as the configuration says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.config import RecipeConfig, RunConfig
from engine.config_evolution import each
from engine.errors import ConfigError
from engine.finetune_draws import draw_child_finetune
from engine.recipe_table import RecipeRow
from engine.recipe_tally import RecipeTally
from engine.seeding import Purpose, key, stream
from populations.manager import Birth, Recipe
from populations.plans import FineTune, Mutator
from populations.population import Member
from strategies.bandit import RecipeBandit
from strategies.crossover import crossovers
from strategies.crossover.clone import CloneCrossover
from strategies.crossover.fresh import FreshCrossover
from strategies.errors import StrategyError
from strategies.families import leaves_ancestor
from strategies.mutation import Mutation, mutations
from strategies.mutation.adaptation import adapted, check_adaptable
from strategies.operator import CrossoverOperator
from strategies.recipes import Outcome, RecipeDraw, RecipeGrid, RecipeMix
from strategies.selection import Selection, selections


class Combination(NamedTuple):
    """One recipe of the configuration, its lists expanded.

    Attributes:
        entry: Where it is written: ``evolution.recipes[0]``.
        operator: The crossover operator.
        recipe: What the manager is given.
        weight: Its share of the weight of its entry.
    """

    entry: str
    operator: CrossoverOperator
    recipe: Recipe
    weight: float


class ConfiguredRecipes:
    """Draws operators, mutation and training of children from the settings of a run.

    Raises:
        ConfigError: An operator, mutation or parameter is unknown or out of range.
    """

    def __init__(self, config: RunConfig, n_teachers: int) -> None:
        self._config = config
        self._n_teachers = n_teachers
        self._mutation = _mutation(config)
        self._combinations = _combinations(config, self._mutation)
        self._draw = _draw(config, [one.weight for one in self._combinations])
        self._tally = RecipeTally(len(self._combinations))

    def check(self) -> None:
        """Refuse recipes that need what there will not be, or whose settings are at odds.

        Raises:
            ConfigError: An operator needs more parents than there will be, or a common ancestor
                that students do not have or that the alignment moves them away from; or a recipe
                rescales children that do not have two parents.
        """
        sizes = {
            "evolution.population": self._config.evolution.population,
            "distillation.students": self._config.distillation.students,
        }
        for entry, operator, recipe, _ in self._combinations:
            for setting, size in sizes.items():
                if operator.n_parents > size:
                    raise ConfigError(
                        f"{entry}: {operator.name} needs {operator.n_parents} parents, but "
                        f"{setting} is {size}; raise it, or leave the operator out"
                    )
            if leaves_ancestor(operator.needs, recipe.align, operator.n_parents):
                raise ConfigError(
                    f"{entry}.align is {recipe.align}, but {operator.name} needs parents in the "
                    "order of units of their common ancestor, which that changes; "
                    "use auto or none"
                )
            if recipe.rescale and operator.n_parents < 2:
                raise ConfigError(
                    f"{entry}.rescale is true, but {operator.name} takes {operator.n_parents} "
                    "parents, and only children of two or more are rescaled; set it to false"
                )
            if "ancestor" in operator.needs and self._config.distillation.ancestor != "shared":
                raise ConfigError(
                    f"{entry}: {operator.name} needs parents with a common ancestor, but "
                    f"distillation.ancestor is {self._config.distillation.ancestor}; set it to "
                    "shared, or leave the operator out"
                )

    def notes(self) -> list[str]:
        """Return what a user should know of recipes that get in the way of one another."""
        operators = [one.operator for one in self._combinations]
        related = sorted({each.name for each in operators if "ancestor" in each.needs})
        scratch = sorted({each.name for each in operators if each.n_parents == 0})
        if not related or not scratch:
            return []
        return [
            f"networks from scratch ({', '.join(scratch)}) have no ancestor in common with others: "
            f"where they become parents, children of {', '.join(related)} fail"
        ]

    def draw(self, generation: int, index: int, rng: np.random.Generator) -> Recipe:
        """Return the recipe of one child."""
        position = (generation - 1) * self._config.evolution.children + index
        return self._combinations[self._draw.draw(position, rng)].recipe

    def finetune(
        self, recipe: Recipe, parents: Sequence[Member], rng: np.random.Generator
    ) -> FineTune:
        """Return how a child is trained, given its parents, fitter first."""
        settings = self._config.preset(recipe.preset)
        return draw_child_finetune(settings, parents[0].finetune, self._n_teachers, rng)

    def mutation(
        self, recipe: Recipe, parents: Sequence[Member], rng: np.random.Generator
    ) -> Mutator | None:
        """Return how a child is mutated, given its parents, fitter first.

        With ``adapt`` above 0 its step size is inherited from the fitter parent, see
        ``strategies/mutation/adaptation.py``. A parent without a mutation, such as a student,
        counts as one with the configured one.
        """
        settings, mutation = self._config.evolution.mutation, self._mutation
        if recipe.mutation is None or mutation is None or settings is None or not settings.adapt:
            return recipe.mutation
        return adapted(mutation, parents[0].mutation or mutation, settings.adapt, rng)

    def controls(self) -> Sequence[Recipe]:
        """Return clone + fine-tune and random + fine-tune, both without mutation."""
        return (
            Recipe(CloneCrossover(), CloneCrossover.n_parents, "none", None),
            Recipe(FreshCrossover(), FreshCrossover.n_parents, "none", None),
        )

    def learn(self, births: Sequence[Birth]) -> None:
        """Take in what became of a generation's children; the lost ones are no recipe's fault."""
        outcomes = [Outcome(b.recipe, b.improvement) for b in births if b.status != "lost"]
        self._draw.learn(outcomes)
        self._tally.add(births, outcomes)

    def table(self) -> list[RecipeRow]:
        """Return what each recipe has come to so far."""
        return [
            self._tally.row(number, one.recipe, one.weight, self._draw, share)
            for number, (one, share) in enumerate(
                zip(self._combinations, self._draw.shares().tolist(), strict=True)
            )
        ]


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


def _mutation(config: RunConfig) -> Mutation | None:
    settings = config.evolution.mutation
    if settings is None:
        return None
    try:
        mutation = mutations.create(settings.name, settings.params)
    except StrategyError as error:
        raise ConfigError(f"evolution.mutation: {error}") from error
    if settings.adapt:
        try:
            check_adaptable(mutation)
        except ValueError as error:
            raise ConfigError(
                f"evolution.mutation.adapt is {settings.adapt}, but {error}; set it to 0, or "
                "choose another mutation or step size"
            ) from error
    return mutation


def _combinations(config: RunConfig, mutation: Mutation | None) -> list[Combination]:
    combinations: list[Combination] = []
    for i, settings in enumerate(config.evolution.recipes):
        entry = f"evolution.recipes[{i}]"
        operators = _operators(settings, entry)
        choices = list(itertools.product(operators, each(settings.align), each(settings.finetune)))
        for operator, align, preset in choices:
            recipe = Recipe(
                operator,
                operator.n_parents,
                align,
                mutation,
                settings.rescale,
                preset,
                number=len(combinations),
            )
            weight = settings.weight / len(choices)
            combinations.append(Combination(entry, operator, recipe, weight))
    return combinations


def _operators(settings: RecipeConfig, entry: str) -> list[CrossoverOperator]:
    names = each(settings.operator)
    try:
        return [crossovers.create(name, settings.params) for name in names]
    except StrategyError as error:
        shared = ""
        if len(names) > 1 and settings.params:
            shared = "params are given to every operator of the list, but "
        raise ConfigError(f"{entry}: {shared}{error}") from error


def _draw(config: RunConfig, weights: Sequence[float]) -> RecipeDraw:
    evolution = config.evolution
    if evolution.draw == "grid":
        return RecipeGrid(len(weights))
    if evolution.draw == "bandit":
        return RecipeBandit(len(weights), evolution.bandit.discount, evolution.bandit.explore)
    return RecipeMix(weights)
