"""The population manager: ask it for the next births, tell it what became of them.

Pure state: no files, no Ray. What parents are chosen by, what children are made with, and where
random numbers come from is handed in, typed here as protocols and implemented above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from populations.errors import CultivarError
from populations.genome import Genome
from populations.plans import (
    Align,
    ChildPlan,
    EvaluationPlan,
    FineTune,
    Mutator,
    Operator,
    Result,
    Status,
)
from populations.population import Member, Population, Record


class ParentSelection(Protocol):
    """Chooses parents by fitness."""

    def select(
        self, fitness: NDArray[np.float64], n_parents: int, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Return distinct indices into ``fitness``, fitter first."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a child is made from its parents.

    Attributes:
        operator: The crossover operator.
        n_parents: How many parents it takes.
        align: How the other parents are aligned to the first one.
        mutation: The mutation, before it is adapted; None for none.
        rescale: Whether the child's hidden units get the statistics of the parents'.
        preset: Name of the fine-tuning preset.
        number: Number of the recipe within the run; None for a control.
    """

    operator: Operator
    n_parents: int
    align: Align
    mutation: Mutator | None
    rescale: bool = False
    preset: str = "default"
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Birth:
    """What became of one child, as far as its recipe is concerned.

    Attributes:
        recipe: Number of the recipe.
        status: What became of the child.
        improvement: Its fitness minus that of its better parent when it was chosen; of a child from
            scratch that of the genome whose training it inherited. None where it was not scored.
    """

    recipe: int
    status: Status
    improvement: float | None


class Recipes(Protocol):
    """Draws what a child is made with, and may learn from what became of it."""

    def draw(self, generation: int, index: int, rng: np.random.Generator) -> Recipe:
        """Return the recipe of one child."""
        ...

    def finetune(
        self, recipe: Recipe, parents: Sequence[Member], rng: np.random.Generator
    ) -> FineTune:
        """Return how a child is trained, given its parents, fitter first."""
        ...

    def mutation(
        self, recipe: Recipe, parents: Sequence[Member], rng: np.random.Generator
    ) -> Mutator | None:
        """Return how a child is mutated, given its parents, fitter first."""
        ...

    def controls(self) -> Sequence[Recipe]:
        """Return what every generation's children are compared with."""
        ...

    def learn(self, births: Sequence[Birth]) -> None:
        """Take in what became of a generation's children, in their order; controls are left out."""
        ...


class Seeds(Protocol):
    """Keys of the random streams of a birth."""

    def selection(self, generation: int, index: int) -> np.random.Generator:
        """Return the stream that parents and recipe are drawn from."""
        ...

    def birth(self, generation: int, index: int) -> tuple[int, ...]:
        """Return the key of the stream that the child itself is made with."""
        ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of everything.

    Attributes:
        population: Parents that a generation is bred from.
        elites: Fittest of them that stay and are scored again on each generation's episodes.
        controls: Births of each control per generation.
        archive: Best genomes over all generations that are remembered.
    """

    population: int
    elites: int
    controls: int
    archive: int


class PopulationManager:
    """Runs (mu + lambda) selection with re-evaluated elites (Beyer & Schwefel 2002).

    A generation goes ``ask`` and ``ask_elites``, then ``tell`` for every result in any order, then
    ``finish_generation``. The parents of a generation are fixed at its start, and recipes learn at
    its end, so its outcome does not depend on the order of arrival.

    Attributes:
        generation: Number of the generation that the population came out of; -1 before students.
        population: Parents of the next generation.
        archive: Best genomes over all generations.
        elites: Elites of the generation that is under way, by genome id, with what they have
            played of it so far.

    Args:
        sizes: How many of everything.
        selection: Chooses parents.
        recipes: Draws what children are made with.
        seeds: Random streams.
    """

    def __init__(
        self, sizes: Sizes, selection: ParentSelection, recipes: Recipes, seeds: Seeds
    ) -> None:
        self.sizes = sizes
        self.generation = -1  # of the population: none is finished yet
        self.population = Population([])
        self.archive = Population([])
        self._selection = selection
        self._recipes = recipes
        self._seeds = seeds
        self._plans: dict[tuple[str, int, int], ChildPlan | EvaluationPlan] = {}
        self.elites: dict[str, Member] = {}
        self._newborn: dict[int, Member] = {}
        self._drawn: dict[int, tuple[int, float]] = {}  # recipe and fitness to beat, by child
        self._births: dict[int, Birth] = {}
        self._bases: dict[str, Genome] = {}  # genomes whose unit order some member keeps, by id

    def remember(self, genome: Genome) -> None:
        """Keep a genome whose order of hidden units others will keep: the shared ancestor."""
        self._bases[genome.id] = genome

    def expect(self, plans: Sequence[ChildPlan]) -> None:
        """Announce births that were planned elsewhere: the students of generation 0."""
        self._plans.update({(plan.phase, plan.generation, plan.index): plan for plan in plans})

    def ask(self, n: int) -> list[ChildPlan]:
        """Plan the next generation: ``n`` children and the controls behind them.

        Raises:
            CultivarError: There are fewer genomes than an operator needs parents.
        """
        recipes: list[Recipe | None] = [None] * n
        recipes += [r for r in self._recipes.controls() for _ in range(self.sizes.controls)]
        members = list(self.population)  # once: a generation may have as many births as it likes
        fitness = np.array([member.fitness for member in members])
        plans = [
            self._plan(members, fitness, index, control) for index, control in enumerate(recipes)
        ]
        self.expect(plans)
        return plans

    def _plan(
        self,
        members: Sequence[Member],
        fitness: NDArray[np.float64],
        index: int,
        control: Recipe | None,
    ) -> ChildPlan:
        generation = self.generation + 1
        rng = self._seeds.selection(generation, index)
        recipe = self._recipes.draw(generation, index, rng) if control is None else control
        if len(members) < max(recipe.n_parents, 1):
            raise CultivarError(
                f"generation {generation} needs {recipe.n_parents} parents for "
                f"{recipe.operator.name}, but only {len(members)} genomes are alive; "
                "use more or better students (distillation.students, distillation.steps)"
            )
        # The fitter parent's training is inherited, so a child from scratch has a model, too.
        models = [
            members[i] for i in self._selection.select(fitness, max(recipe.n_parents, 1), rng)
        ]
        finetune = self._recipes.finetune(recipe, models, rng)
        mutation = self._recipes.mutation(recipe, models, rng)
        if recipe.number is not None:
            self._drawn[index] = (recipe.number, models[0].fitness)
        parents = models[: recipe.n_parents]
        if not parents and finetune.target == "better_parent":
            finetune = replace(finetune, target="teachers")  # there is no parent to imitate
        return ChildPlan(
            kind="child" if control is None else "control",
            generation=generation,
            index=index,
            parents=tuple(parent.genome.id for parent in parents),
            fitness=tuple(parent.fitness for parent in parents),
            operator=recipe.operator,
            align=recipe.align,
            mutation=mutation,
            finetune=finetune,
            seed=self._seeds.birth(generation, index),
            ancestor=self._common_ancestor(parents)
            if "ancestor" in recipe.operator.needs
            else None,
            rescale=recipe.rescale,
            preset=recipe.preset,
        )

    def _common_ancestor(self, parents: Sequence[Member]) -> str | None:
        """Return the genome whose order of units all parents keep, if it is one for all."""
        bases = {parent.genome.lineage.basis for parent in parents}
        return bases.pop() if len(bases) == 1 and bases <= self._bases.keys() else None

    def ask_elites(self) -> list[EvaluationPlan]:
        """Plan the elites' episodes of the next generation."""
        elites = self.population.top(self.sizes.elites)
        self.elites = {member.genome.id: member for member in elites}
        plans = [
            EvaluationPlan(self.generation + 1, index, member.genome.id, "elites")
            for index, member in enumerate(elites)
        ]
        self._plans.update({(plan.phase, plan.generation, plan.index): plan for plan in plans})
        return plans

    def tell(self, results: Sequence[Result]) -> None:
        """Take in what became of plans; in any order, each once.

        Raises:
            ValueError: A result answers no open plan.
        """
        for result in results:
            plan = self._plans.pop(result.key, None)
            if plan is None:
                raise ValueError(f"nobody waits for a result of {result.key}")
            if isinstance(plan, EvaluationPlan):
                self.elites[plan.genome] = self.elites[plan.genome].pooled_with(result.returns)
            else:
                self._take_in(plan, result)

    def _take_in(self, plan: ChildPlan, result: Result) -> None:
        record = Record.of(result.returns) if result.returns else None
        if plan.index in self._drawn:
            recipe, to_beat = self._drawn.pop(plan.index)
            improvement = None if record is None else record.mean - to_beat
            self._births[plan.index] = Birth(recipe, result.status, improvement)
        if result.genome is not None and record is not None and plan.kind in ("student", "child"):
            member = Member(result.genome, plan.finetune, record, plan.mutation)
            self._newborn[plan.index] = member
            if result.genome.lineage.basis == result.genome.id:
                self.remember(result.genome)

    def finish_generation(self) -> None:
        """Let the fittest of elites and newborn survive, and the recipes learn of all births.

        Where too few were born alive, the fittest of the former parents fill up the population.

        Raises:
            ValueError: A plan is still open.
        """
        if self._plans:
            raise ValueError(f"{len(self._plans)} plans of the generation are still open")
        newborn = [self._newborn[index] for index in sorted(self._newborn)]
        known = {**{member.genome.id: member for member in self.population}, **self.elites}
        # A child that is a copy of an elite has played the same episodes as the elite itself.
        newborn = [member for member in newborn if member.genome.id not in self.elites]
        survivors = Population([*self.elites.values(), *newborn], self.sizes.population)
        if len(survivors) < min(self.sizes.population, len(self.population)):
            rest = Population(m for m in known.values() if m.genome.id not in survivors)
            missing = self.sizes.population - len(survivors)
            survivors = Population([*survivors, *rest.top(missing)])
        self.population = survivors
        remembered = [self.elites.get(m.genome.id, m) for m in self.archive]
        self.archive = Population([*remembered, *survivors], self.sizes.archive)
        kept = {member.genome.lineage.basis for member in (*self.archive, *self.population)}
        self._bases = {name: self._bases[name] for name in self._bases if name in kept}
        if self._births:
            self._recipes.learn([self._births[index] for index in sorted(self._births)])
        self.generation += 1
        self.elites, self._newborn, self._births = {}, {}, {}

    def genomes(self) -> dict[str, Genome]:
        """Return every genome that a plan may need: parents, their ancestors, candidates, by id."""
        members = (*self.archive, *self.population)
        return {**self._bases, **{member.genome.id: member.genome for member in members}}
