"""Generations of the manager, with fitness given by hand."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from populations.errors import CultivarError
from populations.genome import Genome, Lineage
from populations.manager import Birth, PopulationManager, Recipe, Sizes
from populations.network import NetworkSpec, Weights
from populations.plans import ChildPlan, EvaluationPlan, FineTune, Plan, Result
from populations.population import Member, Record

SPEC = NetworkSpec((1,), (), 2)
FINETUNE = FineTune("teachers", 1, 1e-3, 1.0, 0.0, (1.0,))


@dataclass(frozen=True)
class Operator:
    """An operator that is never asked to cross."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def cross(self, parents: Any, rng: np.random.Generator) -> Weights:
        raise AssertionError("the manager breeds nobody")


PAIR = Recipe(Operator("pair"), 2, "auto", None, rescale=True, preset="short", number=0)
CLONE = Recipe(Operator("clone"), 1, "none", None)
FRESH = Recipe(Operator("fresh"), 0, "none", None)


@dataclass
class Recipes:
    """Always the same recipe; remembers whose training was inherited."""

    recipe: Recipe = PAIR
    target: Any = "teachers"
    inherited: list[tuple[FineTune, ...]] = field(default_factory=list)
    mutants: list[tuple[Any, ...]] = field(default_factory=list)
    drawn: list[tuple[int, int]] = field(default_factory=list)
    learned: list[list[Birth]] = field(default_factory=list)

    def draw(self, generation: int, index: int, rng: np.random.Generator) -> Recipe:
        self.drawn.append((generation, index))
        return self.recipe

    def finetune(
        self, recipe: Recipe, parents: Sequence[Member], rng: np.random.Generator
    ) -> FineTune:
        self.inherited.append(tuple(parent.finetune for parent in parents))
        return FineTune(self.target, 7, float(rng.uniform(1, 2)), 1.0, 0.0, (1.0,))

    def mutation(self, recipe: Recipe, parents: Sequence[Member], rng: np.random.Generator) -> Any:
        self.mutants.append(tuple(parent.mutation for parent in parents))
        return None if recipe.number is None else Operator(f"mutation-{len(self.mutants)}")

    def controls(self) -> Sequence[Recipe]:
        return (CLONE, FRESH)

    def learn(self, births: Sequence[Birth]) -> None:
        self.learned.append(list(births))


class RandomPairs:
    """Draws parents evenly."""

    def select(self, fitness: Any, n_parents: int, rng: np.random.Generator) -> tuple[int, ...]:
        assert (np.diff(fitness) <= 0).all(), "candidates come fittest first"
        return tuple(sorted(int(i) for i in rng.choice(len(fitness), n_parents, replace=False)))


class Seeds:
    """Streams of generation and index."""

    def selection(self, generation: int, index: int) -> np.random.Generator:
        return np.random.default_rng((generation, index))

    def birth(self, generation: int, index: int) -> tuple[int, ...]:
        return (generation, index)


def make_genome(number: int, kind: str = "child", generation: int = 0, index: int = 0) -> Genome:
    """Return a genome that differs from those of other numbers."""
    weights = {
        "network.0.weight": np.array([[1], [0]], np.float32),
        "network.0.bias": np.array([number, 0], np.float32),
    }
    return Genome.from_weights(SPEC, weights, Lineage(kind, generation, index))


def student_plan(index: int) -> ChildPlan:
    return ChildPlan(
        *("student", 0, index, (), (), FRESH.operator, "none", None, FINETUNE, (0, index)),
        phase="students",
    )


def answer(plan: Plan, *returns: float, number: int | None = None) -> Result:
    """Return a successful result; ``number`` names the genome, by default a new one."""
    genome = None
    if isinstance(plan, ChildPlan):
        number = 1000 * plan.generation + plan.index if number is None else number
        genome = make_genome(number, plan.kind, plan.generation, plan.index)
    return Result(*plan.key, status="ok", genome=genome, returns=returns)


def failure(plan: Plan, status: Any = "failed") -> Result:
    return Result(*plan.key, status=status, reason="bad luck")


def founded(
    returns: Sequence[float],
    *,
    population: int = 4,
    elites: int = 2,
    controls: int = 0,
    archive: int = 3,
    recipes: Recipes | None = None,
) -> PopulationManager:
    """Return a manager whose students had the given returns."""
    sizes = Sizes(population, elites, controls, archive)
    manager = PopulationManager(sizes, RandomPairs(), recipes or Recipes(), Seeds())
    plans = [student_plan(index) for index in range(len(returns))]
    manager.expect(plans)
    manager.tell([answer(plan, value) for plan, value in zip(plans, returns, strict=True)])
    manager.finish_generation()
    return manager


def numbers(members: Any) -> list[int]:
    """Return what the genomes were made from, in order."""
    return [int(member.genome.vectors["network.0.bias"][0]) for member in members]


def live(
    manager: PopulationManager, children: Sequence[float | None], elites: Sequence[float] = ()
) -> None:
    """Go through a generation with the given returns; None is a child that failed."""
    births, again = manager.ask(len(children)), manager.ask_elites()
    results = [
        failure(plan) if value is None else answer(plan, value)
        for plan, value in zip(births, children, strict=True)
    ]
    results += [answer(plan, value) for plan, value in zip(again, elites, strict=True)]
    manager.tell(results)
    manager.finish_generation()


# --- survival ----------------------------------------------------------------------------------


def test_the_fittest_students_are_the_first_population() -> None:
    manager = founded([5, 9, 1, 7, 3])
    assert numbers(manager.population) == [1, 3, 0, 4]
    assert numbers(manager.archive) == [1, 3, 0]
    assert manager.generation == 0


def test_elites_and_children_compete_and_other_parents_go() -> None:
    manager = founded([5, 9, 1, 7])  # elites are students 1 and 3
    live(manager, [8, 2, 6, 6.5], elites=[9, 7])
    assert numbers(manager.population) == [1, 1000, 3, 1003]
    assert manager.generation == 1


def test_elites_survive_unchanged_with_pooled_returns() -> None:
    manager = founded([5, 9, 1, 7])
    live(manager, [0, 0, 0, 0], elites=[3, 8])
    elite = manager.population[make_genome(1).id]
    assert elite.record == Record.of((9, 3))
    assert elite.fitness == 6
    assert manager.population[make_genome(3).id].fitness == 7.5
    assert numbers(manager.population)[:2] == [3, 1]
    assert manager.archive[make_genome(1).id].record == Record.of((9, 3))


def test_a_lucky_elite_is_replaced_by_better_children() -> None:
    manager = founded([5, 90, 1, 70])
    live(manager, [50, 51, 52, 53], elites=[0, 0])
    assert numbers(manager.population) == [1003, 1002, 1001, 1000]


def test_without_elites_all_parents_go() -> None:
    manager = founded([5, 9, 1, 7], elites=0)
    assert manager.ask_elites() == []
    live(manager, [3, 2, 4, 1, 0.5])
    assert numbers(manager.population) == [1002, 1000, 1001, 1003]
    assert numbers(manager.archive) == [1, 3, 0]  # which is not forgotten


def test_former_parents_fill_up_where_too_few_are_born() -> None:
    manager = founded([5, 9, 1, 7])
    live(manager, [0.5, None, None], elites=[9, 7])
    assert numbers(manager.population) == [1, 3, 0, 1000]


def test_a_generation_of_failures_leaves_the_parents() -> None:
    manager = founded([5, 9, 1, 7], elites=0)
    live(manager, [None, None])
    assert numbers(manager.population) == [1, 3, 0, 2]


def test_the_archive_remembers_the_best_of_all_generations() -> None:
    manager = founded([5, 9, 1, 7], elites=0, archive=3)
    live(manager, [8, 2, 1, 0])
    live(manager, [6, 3, 2, 1])
    assert numbers(manager.archive) == [1, 1000, 3]
    assert set(manager.genomes()) == {
        *(m.genome.id for m in manager.archive),
        *(m.genome.id for m in manager.population),
    }


@pytest.mark.parametrize("status", ["failed", "rejected", "lost"])
def test_what_was_not_born_is_nobody(status: Any) -> None:
    manager = founded([5, 9, 1, 7], elites=0)
    first, second = manager.ask(2)
    manager.tell([failure(first, status), answer(second, 6)])
    manager.finish_generation()
    assert 1001 in numbers(manager.population)
    assert 1000 not in numbers(manager.population)


@pytest.mark.parametrize("status", ["failed", "lost"])
def test_an_elite_that_could_not_play_keeps_its_record(status: Any) -> None:
    manager = founded([5, 9, 1, 7])
    births, again = manager.ask(1), manager.ask_elites()
    manager.tell([answer(births[0], 0), failure(again[0], status), answer(again[1], 8)])
    manager.finish_generation()
    assert manager.population[make_genome(1).id].record == Record.of((9,))
    assert manager.population[make_genome(3).id].record == Record.of((7, 8))


def test_controls_never_enter_the_population() -> None:
    manager = founded([5, 9, 1, 7], controls=2)
    births, again = manager.ask(2), manager.ask_elites()
    assert [plan.kind for plan in births] == ["child"] * 2 + ["control"] * 4
    assert [plan.operator.name for plan in births[2:]] == ["clone", "clone", "fresh", "fresh"]
    assert [len(plan.parents) for plan in births] == [2, 2, 1, 1, 0, 0]
    assert [plan.index for plan in births] == list(range(6))
    manager.tell([answer(plan, 1e6 if plan.kind == "control" else 6) for plan in births])
    manager.tell([answer(plan, 8) for plan in again])
    manager.finish_generation()
    assert not {1002, 1003, 1004, 1005} & {*numbers(manager.population), *numbers(manager.archive)}


# --- copies ------------------------------------------------------------------------------------


def test_children_that_are_equal_are_one_member() -> None:
    manager = founded([5, 9, 1, 7], elites=0)
    births = manager.ask(3)
    manager.tell(
        [answer(plan, value, number=50) for plan, value in zip(births, (6, 6, 6), strict=True)]
    )
    manager.finish_generation()
    assert numbers(manager.population).count(50) == 1
    assert manager.population[make_genome(50).id].genome.lineage.index == 0


def test_a_copy_of_an_elite_adds_nothing_to_its_record() -> None:
    manager = founded([5, 9, 1, 7])
    births, again = manager.ask(2), manager.ask_elites()
    manager.tell([answer(births[0], 100, number=1), answer(births[1], 6)])
    manager.tell([answer(plan, 8) for plan in again])
    manager.finish_generation()
    assert manager.population[make_genome(1).id].record == Record.of((9, 8))


# --- order of arrival --------------------------------------------------------------------------


def test_the_order_of_results_does_not_matter() -> None:
    outcomes = set()
    for order in itertools.permutations(range(5)):
        manager = founded([5, 9, 1, 7])
        births, again = manager.ask(3), manager.ask_elites()
        results = [answer(plan, 6) for plan in births] + [answer(plan, 6) for plan in again]
        for number in order:
            manager.tell([results[number]])
        manager.finish_generation()
        outcomes.add(tuple((m.genome.id, m.record) for m in manager.population))
    assert len(outcomes) == 1


def test_a_generation_ends_only_when_every_plan_is_answered() -> None:
    manager = founded([5, 9, 1, 7])
    births, again = manager.ask(2), manager.ask_elites()
    manager.tell([answer(births[0], 1), answer(again[0], 1)])
    with pytest.raises(ValueError, match="2 plans of the generation are still open"):
        manager.finish_generation()


def test_a_result_that_nobody_waits_for_is_refused() -> None:
    manager = founded([5, 9, 1, 7])
    (plan,) = manager.ask(1)
    manager.tell([answer(plan, 1)])
    with pytest.raises(ValueError, match=r"nobody waits for a result of \('children', 1, 0\)"):
        manager.tell([answer(plan, 1)])


# --- plans -------------------------------------------------------------------------------------


def test_asking_is_deterministic() -> None:
    first, second = (founded([5, 9, 1, 7], controls=1).ask(6) for _ in range(2))
    assert first == second
    assert len({plan.parents for plan in first}) > 1


def test_a_plan_does_not_depend_on_how_many_are_asked_for() -> None:
    few, many = (founded([5, 9, 1, 7]).ask(n) for n in (3, 9))
    assert many[:3] == few


def test_a_plan_names_parents_fitter_first_with_their_fitness() -> None:
    manager = founded([5, 9, 1, 7])
    for plan in manager.ask(12):
        assert len(set(plan.parents)) == 2
        assert plan.fitness == tuple(manager.population[p].fitness for p in plan.parents)
        assert plan.fitness[0] >= plan.fitness[1]
        assert (plan.generation, plan.phase) == (1, "children")
        assert plan.seed == (1, plan.index)


def test_the_training_of_the_parents_is_inherited_fitter_first() -> None:
    recipes = Recipes()
    manager = founded([5, 9, 1, 7], recipes=recipes, elites=0)
    live(manager, [4, 3, 2, 1])  # children, each with a learning rate of its own
    recipes.inherited.clear()
    for plan, inherited in zip(manager.ask(6), recipes.inherited, strict=True):
        assert inherited == tuple(manager.population[p].finetune for p in plan.parents)


def test_a_child_without_parents_has_a_model_but_imitates_teachers() -> None:
    recipes = Recipes(target="better_parent")
    manager = founded([5, 9, 1, 7], controls=1, recipes=recipes)
    child, clone, fresh = manager.ask(1)
    assert [len(inherited) for inherited in recipes.inherited] == [2, 1, 1]
    assert (fresh.parents, fresh.fitness) == ((), ())
    targets = [plan.finetune.target for plan in (child, clone, fresh)]
    assert targets == ["better_parent", "better_parent", "teachers"]


def test_elites_are_asked_to_play_the_next_generation() -> None:
    manager = founded([5, 9, 1, 7])
    assert manager.ask_elites() == [
        EvaluationPlan(1, 0, make_genome(1).id, "elites"),
        EvaluationPlan(1, 1, make_genome(3).id, "elites"),
    ]


def test_too_few_genomes_for_an_operator_are_an_error_that_says_what_to_do() -> None:
    manager = founded([5])
    expected = "generation 1 needs 2 parents for pair, but only 1 genomes are alive; use more"
    with pytest.raises(CultivarError, match=expected):
        manager.ask(1)


def test_nobody_can_be_bred_before_there_are_students() -> None:
    manager = PopulationManager(Sizes(4, 2, 0, 3), RandomPairs(), Recipes(FRESH), Seeds())
    with pytest.raises(CultivarError, match="only 0 genomes are alive"):
        manager.ask(1)


# --- recipes -----------------------------------------------------------------------------------


def test_a_plan_tells_the_recipe_that_was_drawn_for_its_place() -> None:
    recipes = Recipes()
    manager = founded([5, 9, 1, 7], controls=1, recipes=recipes)
    child, second, clone, _ = manager.ask(2)
    assert recipes.drawn == [(1, 0), (1, 1)]  # controls are not drawn
    assert (child.rescale, child.preset, second.preset) == (True, "short", "short")
    assert (clone.rescale, clone.preset) == (False, "default")


def test_a_member_remembers_the_mutation_that_its_children_inherit_from() -> None:
    recipes = Recipes()
    manager = founded([5, 9, 1, 7], elites=1, recipes=recipes)
    births, again = manager.ask(3), manager.ask_elites()
    assert recipes.mutants == [(None, None)] * 3  # students have none
    manager.tell([answer(plan, 8 + plan.index) for plan in births])
    manager.tell([answer(plan, 9) for plan in again])
    manager.finish_generation()
    mutations = {member.genome.id: member.mutation for member in manager.population}
    assert [mutations[make_genome(1000 + i).id] for i in range(3)] == [p.mutation for p in births]
    recipes.mutants.clear()
    for plan, inherited in zip(manager.ask(6), recipes.mutants, strict=True):
        assert inherited == tuple(mutations[parent] for parent in plan.parents)


def test_recipes_learn_the_improvements_of_a_generation_in_the_order_of_its_children() -> None:
    learned = []
    for order in itertools.permutations(range(4)):
        recipes = Recipes()
        manager = founded([5, 9, 1, 7], controls=1, recipes=recipes)
        births, again = manager.ask(4), manager.ask_elites()
        answers = [answer(births[0], 4, 6), failure(births[1]), failure(births[2], "lost")]
        answers.append(answer(births[3], 20))
        for number in order:
            manager.tell([answers[number]])
        manager.tell([answer(plan, 1e6) for plan in births[4:]])  # the controls
        manager.tell([answer(plan, 8) for plan in again])
        assert recipes.learned == []  # nothing before the end of the generation
        manager.finish_generation()
        learned += recipes.learned
        first, last = births[0].fitness[0], births[3].fitness[0]
        assert recipes.learned == [
            [
                Birth(0, "ok", 5 - first),
                Birth(0, "failed", None),
                Birth(0, "lost", None),
                Birth(0, "ok", 20 - last),
            ]
        ]
    assert len(learned) == 24


def test_a_child_from_scratch_has_to_beat_the_genome_whose_training_it_inherited() -> None:
    recipes = Recipes(Recipe(FRESH.operator, 0, "none", None, number=3))
    manager = founded([5, 9, 1, 7], elites=0, recipes=recipes)
    (plan,) = manager.ask(1)
    rng = np.random.default_rng((1, 0))
    model = int(rng.choice(4, 1, replace=False)[0])
    manager.tell([answer(plan, 30)])
    manager.finish_generation()
    assert recipes.learned == [[Birth(3, "ok", 30 - [9, 7, 5, 1][model])]]


# --- common ancestors --------------------------------------------------------------------------

KIN = Recipe(Operator("kin", needs=("ancestor",)), 2, "auto", None, number=0)


def with_basis(plan: ChildPlan, value: float, basis: str = "") -> Result:
    """Return a birth whose hidden units keep the order of ``basis``, or an order of their own."""
    result = answer(plan, value)
    assert result.genome is not None
    result.genome = Genome.from_weights(
        SPEC,
        result.genome.to_weights(),
        Lineage(plan.kind, plan.generation, plan.index, basis=basis),
    )
    return result


def family(
    bases: Sequence[str], ancestor: Genome | None, recipe: Recipe = KIN
) -> PopulationManager:
    """Return a manager whose students have these bases; ``ancestor`` is remembered."""
    manager = PopulationManager(Sizes(4, 0, 0, 2), RandomPairs(), Recipes(recipe), Seeds())
    if ancestor is not None:
        manager.remember(ancestor)
    plans = [student_plan(index) for index in range(len(bases))]
    manager.expect(plans)
    manager.tell([with_basis(plan, 9 - plan.index, bases[plan.index]) for plan in plans])
    manager.finish_generation()
    return manager


def test_a_plan_names_the_common_ancestor_of_its_parents_where_the_operator_needs_it() -> None:
    ancestor = make_genome(77, "ancestor")
    manager = family([ancestor.id] * 4, ancestor)
    plans = manager.ask(5)
    assert {plan.ancestor for plan in plans} == {ancestor.id}
    assert all(ancestor.id in plan.needs for plan in plans)
    assert manager.genomes()[ancestor.id].id == ancestor.id


def test_an_ancestor_that_the_operator_does_not_need_is_not_sent_along() -> None:
    ancestor = make_genome(77, "ancestor")
    manager = family([ancestor.id] * 3, ancestor, PAIR)
    assert {plan.ancestor for plan in manager.ask(3)} == {None}


def test_parents_of_different_order_have_no_common_ancestor() -> None:
    manager = family(["", "", ""], None)  # each has an order of its own
    assert {plan.ancestor for plan in manager.ask(5)} == {None}


def test_an_ancestor_that_nobody_remembers_is_none() -> None:
    manager = family(["0123456789ab"] * 3, None)
    assert {plan.ancestor for plan in manager.ask(3)} == {None}


def test_a_student_with_an_order_of_its_own_is_an_ancestor_of_its_line() -> None:
    manager = family([""], None, Recipe(KIN.operator, 1, "auto", None, number=0))
    (student,) = manager.population
    assert student.genome.lineage.basis == student.genome.id
    (plan,) = manager.ask(1)
    assert plan.ancestor == student.genome.id


def test_an_ancestor_is_kept_as_long_as_somebody_keeps_its_order() -> None:
    ancestor = make_genome(77, "ancestor")
    manager = family([ancestor.id] * 3, ancestor)
    births = manager.ask(4)
    manager.tell([with_basis(plan, 100 + plan.index, ancestor.id) for plan in births])
    manager.finish_generation()
    assert {plan.ancestor for plan in manager.ask(3)} == {ancestor.id}
    for _ in range(2):  # until the archive has nobody of that order left, either
        births = manager.ask(4)
        manager.tell([with_basis(plan, 1000 + plan.index) for plan in births])
        manager.finish_generation()
    assert ancestor.id not in manager.genomes()
