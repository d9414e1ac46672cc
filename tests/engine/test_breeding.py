"""Births of small CartPole networks: what comes out, what fails, and that batches do not matter."""

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.breeding import FACT_STATES, Context, breed_batch
from engine.conception import ParentBook, conceive
from engine.config import RunConfig
from engine.founders import ancestor_plan, student_plans
from engine.learning.imitation import Lessons
from engine.learning.qnetwork import sequential
from engine.learning.states import collect_states, split_states, teacher_values
from engine.learning.targets import targets
from engine.learning.teachers import Teacher
from engine.playing.environments import describe
from engine.playing.evaluation import evaluate
from engine.playing.policies import StackedPolicy
from engine.recipes import ConfiguredRecipes, RunSeeds, make_selection
from engine.seeding import Purpose, key, stream
from populations.genome import Genome
from populations.manager import PopulationManager, Sizes
from populations.network import NetworkSpec, Weights
from populations.plans import ChildPlan, EvaluationPlan, FineTune, Result
from strategies.crossover.clone import CloneCrossover
from strategies.crossover.fresh import FreshCrossover
from strategies.crossover.unit import UnitCrossover
from strategies.crossover.weighted import WeightedCrossover
from strategies.gradients import fisher_diagonal
from strategies.mutation import GaussianMutation, Mutation, Newborn
from strategies.operator import CrossoverOperator, Family
from strategies.rescaling import restore_statistics

CONFIG = RunConfig.model_validate(
    {
        "seed": 3,
        "environment": {"lanes": 16},
        "states": {"size": 200, "episodes": 8},
        "network": {"hidden": [7, 5], "norm": "layer"},
        "learning": {"batch_size": 32, "validation_every": 4},
        "distillation": {"students": 6, "steps": 20, "ancestor": "independent"},
        "finetune": {"steps": 8},
        "evaluation": {"episodes": 6, "holdout_episodes": 10},
        "evolution": {"population": 6, "elites": 2},
    }
)
TEACHERS = NetworkSpec((4,), (), 2)
OUTPUT = NetworkSpec((4,), (7, 5), 2, norm="layer").blocks[-1]
VOLATILE = {"attempts", "node", "wall_s", "cpu_s"}


@dataclass(frozen=True)
class World:
    """A context, and the students that parents are taken from."""

    context: Context
    students: list[Genome]

    @property
    def genomes(self) -> dict[str, Genome]:
        return {genome.id: genome for genome in self.students}


def make_teacher(seed: int) -> Weights:
    """Return a linear policy near one that balances the pole."""
    good = np.array([[0, 0, 0, 0], [0.1, 0.5, 1, 1]], np.float32)
    noise = np.random.default_rng(seed).normal(0, 0.1, good.shape).astype(np.float32)
    return {"network.0.weight": good + noise, "network.0.bias": np.zeros(2, np.float32)}


@pytest.fixture(scope="module")
def world() -> World:
    weights = [make_teacher(seed) for seed in (0, 1)]
    teachers = [Teacher(f"teacher-{i}", TEACHERS, w) for i, w in enumerate(weights)]
    task = describe(CONFIG.environment)
    states = collect_states(CONFIG, task, teachers)
    wanted, _ = targets(teacher_values(TEACHERS, weights, states), CONFIG.learning.targets)
    train, validation = split_states(len(states), 0.3, key(CONFIG.seed, Purpose.SPLIT))
    by_action = wanted.transpose(0, 2, 1)
    context = Context(
        run_seed=CONFIG.seed,
        environment=CONFIG.environment,
        learning=CONFIG.learning,
        spec=NetworkSpec(task.observation_shape, (7, 5), task.n_actions, norm="layer"),
        vector_dtype="float32",
        lessons=Lessons(
            states[train],
            np.ascontiguousarray(by_action[:, :, train]),
            states[validation],
            np.ascontiguousarray(by_action[:, :, validation]),
        ),
        episodes=CONFIG.evaluation.episodes,
        holdout_episodes=CONFIG.evaluation.holdout_episodes,
    )
    results = context.work(student_plans(CONFIG, 2, None), {})
    assert [result.status for result in results] == ["ok"] * 6
    return World(context, [result.genome for result in results if result.genome is not None])


def plan(
    index: int,
    parents: Sequence[Genome] = (),
    operator: Any = None,
    mutation: Any = None,
    align: Any = "auto",
    **changes: Any,
) -> ChildPlan:
    """Return the plan of a child of generation 1; changes go to its fine-tuning."""
    finetune = FineTune("teachers", 8, 3e-3, 1.0, 0.0, (0.5, 0.5), repair=True)
    return ChildPlan(
        kind="child",
        generation=1,
        index=index,
        parents=tuple(parent.id for parent in parents),
        fitness=tuple(float(-rank) for rank in range(len(parents))),
        operator=operator or (WeightedCrossover() if len(parents) > 1 else CloneCrossover()),
        align=align,
        mutation=mutation,
        finetune=replace(finetune, **changes),
        seed=key(CONFIG.seed, Purpose.BIRTH, 1, index),
    )


def facts(result: Result) -> dict[str, Any]:
    """Return everything about a result that may not differ between two ways of getting it."""
    values = {f.name: getattr(result, f.name) for f in fields(result) if f.name not in VOLATILE}
    genome = result.genome
    if genome is not None:
        values["genome"] = (genome.id, genome.lineage)
    return values


def breed(world: World, *plans: ChildPlan) -> list[Result]:
    return breed_batch(world.context, plans, world.genomes)


def returns_of(world: World, weights: Weights, phase: str = "children", generation: int = 1) -> Any:
    policy = StackedPolicy(world.context.spec, [weights])
    seeds = world.context.seeds(phase, generation)
    return tuple(evaluate(world.context.environment, policy, seeds).returns[0])


# --- what a child is ---------------------------------------------------------------------------


def test_a_child_scores_what_its_genome_returns(world: World) -> None:
    (result,) = breed(world, plan(0, world.students[:2]))
    assert result.status == "ok"
    assert result.genome is not None
    assert result.returns == returns_of(world, result.genome.to_weights())
    assert len(result.returns) == CONFIG.evaluation.episodes


def test_agreements_are_shares_of_equal_best_actions(world: World) -> None:
    (result,) = breed(world, plan(0, world.students[:2]))
    assert result.genome is not None
    lessons = world.context.lessons
    module = sequential(world.context.spec, result.genome.to_weights())
    with torch.no_grad():
        actions = module(torch.from_numpy(lessons.validation_states)).numpy().argmax(axis=1)
    expected = [(actions == values.argmax(axis=0)).mean() for values in lessons.validation_targets]
    assert result.agreements == pytest.approx(expected)


def test_without_a_target_a_child_is_what_the_operator_made(world: World) -> None:
    (result,) = breed(world, plan(0, world.students[:1], target="none"))
    assert result.genome is not None
    assert result.genome.id == world.students[0].id  # a clone that nothing has changed
    assert result.returns == returns_of(world, world.students[0].to_weights())
    assert result.mean_before == np.mean(result.returns)
    assert result.kl is None
    assert not result.tuned


def test_mutation_and_crossover_draw_from_the_seed_of_the_child(world: World) -> None:
    spec, parents = world.context.spec, world.students[:2]
    child = plan(4, parents, mutation=GaussianMutation(scale=0.1), align="none", target="none")
    (result,) = breed(world, child)
    rng = stream(child.seed)
    family = Family([p.to_weights() for p in parents], spec, child.parents, child.fitness)
    crossed = WeightedCrossover().cross(family, rng)
    mutant = GaussianMutation(scale=0.1).mutate(Newborn(crossed, spec), rng)
    assert result.genome is not None
    assert result.genome.id == Genome.from_weights(spec, mutant, result.genome.lineage).id


def test_parents_of_another_basis_are_aligned_unless_told_otherwise(world: World) -> None:
    first, second = world.students[:2]
    assert first.lineage.basis != second.lineage.basis

    def genome(align: str, other: Genome) -> str:
        child = plan(0, (first, other), UnitCrossover(), align=align, target="none")
        (result,) = breed_batch(world.context, [child], {**world.genomes, other.id: other})
        assert result.genome is not None
        return result.genome.id

    assert genome("auto", second) == genome("activations", second) != genome("none", second)
    kin = second.with_lineage(replace(second.lineage, basis=first.lineage.basis))
    assert genome("auto", kin) == genome("none", second)


def test_a_child_of_its_parent_does_not_learn_from_teachers(world: World) -> None:
    lessons = world.context.lessons
    opposite = replace(
        world.context, lessons=replace(lessons, train_targets=-lessons.train_targets)
    )
    mutation = GaussianMutation(scale=0.3)
    for target, is_equal in (("better_parent", True), ("none", True), ("teachers", False)):
        child = plan(0, world.students[:2], mutation=mutation, target=target)
        one, other = (
            facts(breed_batch(context, [child], world.genomes)[0])
            for context in (world.context, opposite)
        )
        assert (one == other) == is_equal, target


def test_a_mutant_that_imitates_its_parent_comes_back_to_it(world: World) -> None:
    parent = world.students[0]
    mutant = plan(0, [parent], mutation=GaussianMutation(scale=0.3), target="better_parent")
    (result,) = breed(world, mutant)
    states = torch.from_numpy(world.context.lessons.validation_states)

    def actions(genome: Genome) -> Any:
        with torch.no_grad():
            return sequential(world.context.spec, genome.to_weights())(states).argmax(dim=1)

    (untrained,) = breed(world, replace(mutant, finetune=replace(mutant.finetune, target="none")))
    assert result.genome is not None
    assert untrained.genome is not None
    share = (actions(result.genome) == actions(parent)).float().mean()
    assert share > (actions(untrained.genome) == actions(parent)).float().mean()
    assert share > 0.8


def test_teacher_weights_choose_the_teacher(world: World) -> None:
    lessons = world.context.lessons
    at_odds = replace(
        lessons,
        train_targets=np.stack([lessons.train_targets[0], -lessons.train_targets[0]]),
        validation_targets=np.stack(
            [lessons.validation_targets[0], -lessons.validation_targets[0]]
        ),
    )
    context = replace(world.context, lessons=at_odds)
    plans = [
        replace(plan(i, teacher_weights=w, steps=100), operator=FreshCrossover(), phase="students")
        for i, w in enumerate([(1.0, 0.0), (0.0, 1.0)])
    ]
    for number, result in enumerate(breed_batch(context, plans, {})):
        assert result.agreements[number] > 0.8
        assert sum(result.agreements) == pytest.approx(1)


# --- before or after fine-tuning ---------------------------------------------------------------


def test_the_better_of_before_and_after_training_is_kept(world: World) -> None:
    plans = [
        plan(
            i,
            (world.students[i % 6], world.students[(i + 1) % 6]),
            mutation=GaussianMutation(scale=0.2),
            target=("teachers", "better_parent")[i % 2],
        )
        for i in range(16)
    ]
    results = breed(world, *plans)
    played_both = [r for r in results if r.status == "ok" and r.mean_before is not None]
    assert len(played_both) > 8
    for result in played_both:
        assert np.mean(result.returns) >= result.mean_before
        assert result.tuned or np.mean(result.returns) == result.mean_before
    assert {result.tuned for result in played_both} == {True, False}


def test_training_that_makes_a_child_worse_is_undone(world: World) -> None:
    best = max(world.students, key=lambda genome: np.mean(returns_of(world, genome.to_weights())))
    lessons = world.context.lessons
    misleading = replace(
        lessons,
        train_targets=-lessons.train_targets,
        validation_targets=-lessons.validation_targets,
    )
    context = replace(world.context, lessons=misleading)
    (result,) = breed_batch(context, [plan(0, [best])], world.genomes)
    assert not result.tuned
    assert result.genome is not None
    assert result.genome.id == best.id
    assert result.mean_before == np.mean(result.returns)
    assert result.kl is None  # it would be that of the version that was dropped


class BiasedClone(CrossoverOperator):
    """Copy the parent, but prefer action 0 by ``bias``."""

    name = "biased"
    n_parents = 1

    def __init__(self, bias: float) -> None:
        self.bias = bias

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        child = {name: tensor.copy() for name, tensor in parents[0].items()}
        child[OUTPUT.bias] = np.array([self.bias, 0], np.float32)
        return child


def test_a_child_that_only_training_saves_was_not_played_before(world: World) -> None:
    (result,) = breed(world, plan(0, world.students[:1], BiasedClone(1e3)))
    assert result.status == "ok"
    assert result.tuned
    assert result.mean_before is None


def test_a_child_that_always_acts_the_same_is_rejected(world: World) -> None:
    (result,) = breed(world, plan(0, world.students[:1], BiasedClone(1e3), target="none"))
    assert (result.status, result.genome, result.returns) == ("rejected", None, ())
    assert result.reason == "takes the same action on all states"


def test_an_ancestor_that_always_acts_the_same_is_not_rejected(world: World) -> None:
    child = plan(0, world.students[:1], BiasedClone(1e3), target="none")
    (result,) = breed(world, replace(child, kind="ancestor", phase="ancestor", generation=0))
    assert result.status == "ok"
    assert result.genome is not None


def test_a_student_is_only_played_after_distillation(world: World) -> None:
    for result in world.context.work(student_plans(CONFIG, 2, None), {}):
        assert result.tuned
        assert result.mean_before is None
        assert result.kl is not None


# --- lineage -----------------------------------------------------------------------------------


def test_lineage_names_the_birth_and_keeps_the_basis_of_the_first_parent(world: World) -> None:
    first, second = world.students[:2]
    (result,) = breed(world, plan(5, (first, second)))
    assert result.genome is not None
    lineage = result.genome.lineage
    assert (lineage.kind, lineage.generation, lineage.index) == ("child", 1, 5)
    assert lineage.parents == (first.id, second.id)
    assert lineage.operator == "weighted"
    assert lineage.basis == first.lineage.basis


def test_what_has_no_parents_is_its_own_basis(world: World) -> None:
    for student in world.students:
        assert student.lineage.basis == student.id
        assert student.lineage.parents == ()
    (fresh,) = breed(world, replace(plan(0), operator=FreshCrossover()))
    assert fresh.genome is not None
    assert fresh.genome.lineage.basis == fresh.genome.id


def test_students_of_a_shared_ancestor_share_its_basis(world: World) -> None:
    (ancestor,) = world.context.work([ancestor_plan(CONFIG, 2)], {})
    assert ancestor.genome is not None
    ancestor_id = ancestor.genome.id
    plans = student_plans(CONFIG, 2, ancestor_id)
    students = world.context.work(plans, {ancestor_id: ancestor.genome})
    assert len({result.genome.id for result in students if result.genome}) > 1
    for result in students:
        assert result.genome is not None
        assert result.genome.lineage.basis == ancestor_id
        assert result.genome.lineage.parents == (ancestor_id,)


# --- operators that break ----------------------------------------------------------------------


class BrokenCrossover(CrossoverOperator):
    """Average the parents, and break the contract in one way."""

    name = "broken"
    n_parents = 2

    def __init__(self, how: str) -> None:
        self.how = how

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        if self.how == "raise":
            raise RuntimeError("out of ideas")
        if self.how == "exit":
            sys.exit("I want to go home")
        if self.how == "none":
            return None
        if self.how == "write":
            parents[1][OUTPUT.weight][:] = 0
        child = WeightedCrossover(0.5, 0.5).cross(parents, rng)
        bad: dict[str, Any] = dict(child)
        if self.how == "nan":
            bad[OUTPUT.weight][0, 0] = np.nan
        elif self.how == "infinity":
            bad[OUTPUT.bias][0] = np.inf
        elif self.how == "shape":
            bad[OUTPUT.weight] = bad[OUTPUT.weight].T
        elif self.how == "dtype":
            bad[OUTPUT.weight] = bad[OUTPUT.weight].astype(np.float64)
        elif self.how == "list":
            bad[OUTPUT.bias] = [0.0, 0.0]
        elif self.how == "missing":
            del bad[OUTPUT.bias]
        elif self.how == "extra":
            bad["network.99.weight"] = np.zeros(2, np.float32)
        return bad


def line_of(text: str) -> int:
    """Return the first line of this file in which a text stands."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


class BrokenMutation(Mutation):
    """Break the contract in one way."""

    name = "shaky"

    def __init__(self, how: str) -> None:
        self.how = how

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Mapping[str, Any]:
        if self.how == "none":
            return None  # type: ignore[return-value]  # this is the point
        if self.how == "raise":
            raise RuntimeError("too much coffee")
        if self.how == "write":
            child.weights[OUTPUT.weight][:] = 0
        return {name: np.full_like(tensor, np.nan) for name, tensor in child.weights.items()}


BREAKS = {
    "raise": "broken: RuntimeError: out of ideas",
    "none": "the child of broken is missing: it returned nothing",
    "exit": "broken: SystemExit: I want to go home",
    "write": "broken writes into what it was given, which is read-only: assignment destination",
    "nan": "the child of broken: network.6.weight holds NaN or infinity",
    "infinity": "the child of broken: network.6.bias holds NaN or infinity",
    "shape": "the child of broken: network.6.weight must be float32 of shape (2, 5), not",
    "dtype": "the child of broken: network.6.weight must be float32 of shape (2, 5), not float64",
    "list": "the child of broken: network.6.bias must be a NumPy array, not a list",
    "missing": "the child of broken: expected the tensors",
    "extra": "the child of broken: expected the tensors",
}


@pytest.mark.parametrize("how", BREAKS)
def test_an_operator_that_breaks_fails_only_its_child(world: World, how: str) -> None:
    first, second = (
        plan(i, world.students[:2], mutation=GaussianMutation(), align="none") for i in (0, 2)
    )
    broken = plan(1, world.students[:2], BrokenCrossover(how), align="none")
    before, failed, after = breed(world, first, broken, second)
    assert failed.status == "failed"
    assert failed.reason.startswith(BREAKS[how])
    assert (failed.genome, failed.returns, failed.key) == (None, (), ("children", 1, 1))
    assert [facts(before), facts(after)] == [facts(r) for r in breed(world, first, second)]
    assert before.status == after.status == "ok"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("none", "the mutant of shaky is missing: it returned nothing, not a dictionary"),
        ("raise", "shaky: RuntimeError: too much coffee (test_breeding.py, line {raise})"),
        ("nan", "the mutant of shaky: network.0.weight holds NaN or infinity"),
        (
            "write",
            "shaky writes into what it was given, which is read-only: assignment destination is "
            "read-only; copy what you want to change (test_breeding.py, line {write})",
        ),
    ],
)
def test_a_mutation_that_breaks_is_named(world: World, how: str, reason: str) -> None:
    broken = plan(1, world.students[:2], mutation=BrokenMutation(how))
    failed, neighbor = breed(world, broken, plan(2, world.students[:2]))
    lines = {"raise": line_of("too much coffee"), "write": line_of("child.weights[OUTPUT.weight][")}
    assert (failed.status, failed.reason) == ("failed", reason.format(**lines))
    assert facts(neighbor) == facts(breed(world, plan(2, world.students[:2]))[0])


def test_what_an_array_refuses_is_told_with_the_line_that_asked(world: World) -> None:
    class Sideways(WeightedCrossover):
        name = "sideways"

        def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
            return {name: np.flip(tensor, axis=5) for name, tensor in parents[0].items()}

    (failed,) = breed(world, plan(0, world.students[:2], Sideways()))
    assert failed.reason.startswith("sideways: AxisError: ")
    assert failed.reason.endswith(f" (test_breeding.py, line {line_of('axis=5) for name')})")


class Vandal(CrossoverOperator):
    """Make the parents writable again, and then ruin them."""

    name = "vandal"
    n_parents = 2

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        child = WeightedCrossover().cross(parents, rng)
        for parent in parents:
            for tensor in parent.values():
                tensor.flags.writeable = True
                tensor[:] = np.nan
        return child


def test_parents_cannot_even_be_made_writable(world: World) -> None:
    vandal = plan(0, world.students[:2], Vandal(), align="none", target="better_parent")
    honest = plan(1, world.students[:2], align="none", target="better_parent")
    failed, neighbor = breed(world, vandal, honest)
    assert failed.status == "failed"
    assert failed.reason.startswith("vandal writes into what it was given, which is read-only: ")
    assert facts(neighbor) == facts(breed(world, honest)[0])


def test_a_network_that_overflows_fails_or_is_rejected_alone(world: World) -> None:
    class Giant(CloneCrossover):
        name = "giant"

        def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
            return {name: tensor * np.float32(1e30) for name, tensor in parents[0].items()}

    neighbor = plan(1, world.students[:2])
    with np.errstate(all="ignore"):
        giant, alongside = breed(world, plan(0, world.students[:1], Giant()), neighbor)
    assert giant.status in ("failed", "rejected")
    assert facts(alongside) == facts(breed(world, neighbor)[0])


# --- what operators need -----------------------------------------------------------------------


class Curious(CrossoverOperator):
    """Give the first parent back if everything that was declared is there."""

    name = "curious"
    n_parents = 2
    needs = ("ancestor", "states", "activations", "grams", "fisher")

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        spec, n_states = parents.spec, len(parents.states)
        assert n_states > 0
        for index in range(2):
            assert [a.shape for a in parents.activations[index]] == [
                (n_states, layer.n_units) for layer in spec.units
            ]
            assert [g.shape for g in parents.grams[index]] == [
                (block.n_in + 1, block.n_in + 1) for block in spec.blocks
            ]
            assert {n: f.shape for n, f in parents.fisher[index].items()} == spec.shapes
        return {name: tensor.copy() for name, tensor in parents.ancestor.items()}


def test_an_operator_is_given_what_it_needs(world: World) -> None:
    ancestor = world.students[2]
    child = plan(0, world.students[:2], Curious(), target="none")
    (result,) = breed(world, replace(child, ancestor=ancestor.id))
    assert (result.status, result.reason) == ("ok", "")
    assert result.genome is not None
    assert result.genome.id == ancestor.id


def test_parents_without_a_common_ancestor_are_refused_by_name(world: World) -> None:
    pair = world.students[:2]
    refused, neighbor = breed(world, plan(0, pair, Curious()), plan(1, pair))
    assert refused.status == "failed"
    assert refused.reason == (
        f"curious needs parents with a recorded common ancestor, but {pair[0].id} begins a "
        f"line of its own and {pair[1].id} begins a line of its own; students share one with "
        "distillation.ancestor: shared, but a network from scratch (fresh) and a child of "
        "strangers that were not aligned (align: none) begin a line of their own: leave such "
        "recipes out"
    )
    assert neighbor.status == "ok"


@pytest.mark.parametrize("align", ["weights", "activations"])
def test_parents_are_not_moved_out_of_the_order_of_their_ancestor(world: World, align: str) -> None:
    pair = world.students[:2]
    related = replace(plan(0, pair, Curious(), align=align), ancestor=world.students[2].id)
    refused, neighbor = breed(world, related, plan(1, pair, align=align))
    assert refused.reason == (
        "curious needs parents in the order of units of their common ancestor, which "
        f"align={align} changes; use auto or none"
    )
    assert (refused.status, neighbor.status) == ("failed", "ok")
    for harmless in ("auto", "none"):
        assert breed(world, replace(related, align=harmless))[0].status == "ok"


# --- operators that change themselves ----------------------------------------------------------


class Drifting(WeightedCrossover):
    """Is another one after every child."""

    name = "drifting"

    def __init__(self, low: float = 0.1) -> None:
        super().__init__(low, 0.9)
        self.seen: list[int] = []

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        child = super().cross(parents, rng)
        self.low = self.high
        self.seen.append(1)
        return {name: tensor + np.float32(len(self.seen) - 1) for name, tensor in child.items()}


class Growing(GaussianMutation):
    """Doubles its noise with every mutant."""

    name = "growing"

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Weights:
        mutant = super().mutate(child, rng)
        self.scale *= 2
        return mutant


def test_what_an_operator_does_to_itself_reaches_no_other_child(world: World) -> None:
    operator, mutation = Drifting(), Growing(0.1)
    plans = [plan(i, world.students[:2], operator, mutation) for i in range(3)]
    together = [facts(result) for result in breed(world, *plans)]
    for child, found in zip(plans, together, strict=True):
        own = replace(child, operator=Drifting(), mutation=Growing(0.1))
        assert facts(breed(world, own)[0]) == found
    # What the leaderboard will show is what was configured.
    assert (operator.params, operator.seen) == ({"low": 0.1}, [])
    assert mutation.scale == 0.1


class Holding(WeightedCrossover):
    """Keeps what cannot be copied."""

    name = "holding"

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_an_operator_that_cannot_be_copied_fails_its_child(world: World) -> None:
    pair = world.students[:2]
    failed, neighbor = breed(world, plan(0, pair, Holding()), plan(1, pair))
    assert failed.status == "failed"
    assert failed.reason.startswith("holding cannot be copied for its child: TypeError: ")
    assert failed.reason.endswith("attributes that cannot be, such as an open file")
    assert facts(neighbor) == facts(breed(world, plan(1, pair))[0])


class Verbose(WeightedCrossover):
    """Has much to say."""

    name = "verbose"

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        raise ValueError("line\n" * 1_000_000)


def test_the_reason_of_a_failure_fits_a_cell(world: World) -> None:
    (failed,) = breed(world, plan(0, world.students[:2], Verbose()))
    assert failed.reason.startswith("verbose: ValueError: line line line ")
    assert failed.reason.endswith(f"... (test_breeding.py, line {line_of('1_000_000)')})")
    assert len(failed.reason) < 600
    abandoned = plan(0).abandoned("failed", "x" * 3_000_000, 2)
    assert (len(abandoned.reason), abandoned.attempts) == (500, 2)


def test_what_was_not_declared_is_not_given(world: World) -> None:
    class Sneaky(WeightedCrossover):
        name = "sneaky"

        def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
            return dict(parents.fisher[0])

    (failed,) = breed(world, plan(0, world.students[:2], Sneaky()))
    assert failed.reason == (
        "sneaky: NeedError: parents.fisher was not asked for; declare it: "
        "needs = ('fisher',) in the class "
        f"(test_breeding.py, line {line_of('return dict(parents.fisher[0])')})"
    )


def test_facts_of_a_parent_are_computed_once_for_all_its_children(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return fisher_diagonal(*args, **kwargs)

    monkeypatch.setattr("strategies.parents.fisher_diagonal", counted)
    book = ParentBook(world.genomes, world.context.lessons.validation_states)
    pair = world.students[:2]
    for index in range(5):
        child = replace(plan(index, pair, Curious()), ancestor=pair[0].id)
        conceive(world.context.spec, child, book)
    assert len(asked) == 2


def test_rescaling_is_a_choice_of_the_plan(world: World) -> None:
    operator = WeightedCrossover(0.5, 0.5)
    child = plan(0, world.students[:2], operator, align="none", target="none")
    book = ParentBook(world.genomes, world.context.lessons.validation_states[:FACT_STATES])
    parents = book.aligned(child.parents, "none")
    average = conceive(world.context.spec, child, book)
    rescaled = conceive(world.context.spec, replace(child, rescale=True), book)
    expected = restore_statistics(world.context.spec, average, parents)
    for name in expected:
        np.testing.assert_array_equal(rescaled[name], expected[name])
    assert not np.array_equal(rescaled["network.1.weight"], average["network.1.weight"])


class Observant(Mutation):
    """Change nothing, but look at the states."""

    name = "observant"
    needs = ("states",)

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Weights:
        assert child.states is not None
        assert child.states.shape[1] == child.spec.n_inputs
        return child.weights


def test_a_mutation_is_given_the_states_it_asks_for(world: World) -> None:
    (result,) = breed(world, plan(0, world.students[:2], mutation=Observant(), target="none"))
    (plain,) = breed(world, plan(0, world.students[:2], target="none"))
    assert facts(result) == facts(plain)


def test_parents_that_cannot_be_aligned_fail_only_their_child(world: World) -> None:
    first, second = world.students[:2]
    weights = {name: tensor * np.float32(1e30) for name, tensor in second.to_weights().items()}
    giant = Genome.from_weights(second.spec, weights, replace(second.lineage, basis=""))
    plans = [plan(0, (first, giant)), plan(1, (first, second))]
    with np.errstate(all="ignore"):
        failed, neighbor = breed_batch(world.context, plans, {**world.genomes, giant.id: giant})
    assert failed.status == "failed"
    assert failed.reason.startswith("alignment: ValueError: ")
    assert facts(neighbor) == facts(breed(world, plans[1])[0])


def test_vectors_too_large_for_float16_fail_their_child(world: World) -> None:
    context = replace(world.context, vector_dtype="float16")
    child = plan(0, world.students[:1], BiasedClone(1e6), target="none")
    (result,) = breed_batch(context, [child], world.genomes)
    assert result.status == "failed"
    assert result.reason == "network.6.bias holds NaN or infinity"


# --- batches -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generation(world: World) -> list[ChildPlan]:
    """Return the plans of one generation as a run makes them, controls included."""
    manager = PopulationManager(
        Sizes(population=6, elites=2, controls=1, archive=4),
        make_selection(CONFIG),
        ConfiguredRecipes(CONFIG, 2),
        RunSeeds(CONFIG.seed),
    )
    plans = student_plans(CONFIG, 2, None)
    manager.expect(plans)
    manager.tell(world.context.work(plans, {}))
    manager.finish_generation()
    plans = manager.ask(8)
    assert len({plan.operator.name for plan in plans}) > 3
    assert {plan.kind for plan in plans} == {"child", "control"}
    steps = [plan.finetune.steps + plan.index % 2 for plan in plans]  # two stacks in a batch
    return [
        replace(plan, finetune=replace(plan.finetune, steps=n))
        for plan, n in zip(plans, steps, strict=True)
    ]


def test_results_depend_neither_on_the_batch_nor_on_its_order(
    world: World, generation: list[ChildPlan]
) -> None:
    together = {r.key: facts(r) for r in world.context.work(generation, world.genomes)}
    assert sum(fact["status"] == "ok" for fact in together.values()) > len(generation) / 2
    for child in generation:
        (alone,) = world.context.work([child], world.genomes)
        assert facts(alone) == together[alone.key]
    rng = np.random.default_rng(0)
    for _ in range(3):
        order = rng.permutation(len(generation))
        cuts = np.split(order, [int(rng.integers(1, len(order)))])
        for batch in (batch for batch in cuts if len(batch)):
            plans = [generation[i] for i in batch]
            results = world.context.work(plans, world.genomes)
            assert [result.index for result in results] == [plan.index for plan in plans]
            for result in results:
                assert facts(result) == together[result.key]


def test_results_repeat_exactly(world: World, generation: list[ChildPlan]) -> None:
    first, second = (world.context.work(generation, world.genomes) for _ in range(2))
    assert [facts(result) for result in first] == [facts(result) for result in second]


def test_students_do_not_depend_on_their_number(world: World) -> None:
    plans = student_plans(CONFIG, 2, None)
    for number in (0, 3, 5):
        (alone,) = world.context.work([plans[number]], {})
        assert alone.genome is not None
        assert alone.genome.id == world.students[number].id


def test_time_is_shared_evenly_among_the_plans(world: World) -> None:
    results = world.context.work([plan(i, world.students[:2]) for i in range(3)], world.genomes)
    assert len({result.wall_s for result in results}) == 1
    assert results[0].wall_s > 0


@pytest.mark.parametrize(
    ("phase", "generation_number", "n_episodes"),
    [("elites", 1, 6), ("elites", 4, 6), ("holdout", 4, 10)],
)
def test_an_evaluation_returns_the_episodes_of_its_phase(
    world: World, phase: str, generation_number: int, n_episodes: int
) -> None:
    plans = [
        EvaluationPlan(generation_number, index, genome.id, phase)
        for index, genome in enumerate(world.students)
    ][::-1]
    results = world.context.work(plans, world.genomes)
    for asked, result in zip(plans, results, strict=True):
        assert result.key == (phase, generation_number, asked.index)
        assert result.status == "ok"
        assert result.genome is None
        weights = world.genomes[asked.genome].to_weights()
        assert result.returns == returns_of(world, weights, phase, generation_number)
        assert len(result.returns) == n_episodes


def test_elites_and_children_of_a_generation_play_the_same_episodes(world: World) -> None:
    seeds = world.context.seeds
    assert seeds("elites", 3) == seeds("children", 3) != seeds("children", 4)
    assert seeds("holdout", 3) == seeds("holdout", 9)
    assert not set(seeds("holdout", 3)) & {s for g in range(50) for s in seeds("children", g)}
