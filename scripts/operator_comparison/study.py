"""The children of one job: bred by every operator from every pair, tuned, and played."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from engine.breeding import FACT_STATES, Context
from engine.conception import ParentBook, conceive
from engine.errors import ConceptionError
from engine.learning.imitation import Pupil, imitate
from engine.learning.targets import targets
from engine.playing.policies import EnsemblePolicy
from engine.seeding import Purpose, key
from operator_comparison.nursery import Nursery, Student, finetune_settings
from operator_comparison.scores import Scores
from operator_comparison.tasks import ALIGNMENTS, Job, two_parent
from populations.errors import GenomeError
from populations.genome import Genome, Lineage
from populations.network import Weights
from populations.plans import ChildPlan, FineTune
from strategies.families import leaves_ancestor
from strategies.forward import q_values
from strategies.operator import CrossoverOperator

BATCH = 64
"""Networks that are trained side by side; changes no figure, only time and memory."""


@dataclass(frozen=True)
class Row:
    """What one network of the comparison did; NaN where there is no network.

    Attributes:
        task: Gymnasium id.
        seed: Seed of teachers and students.
        regime: Where the students started.
        pair: Numbers of the parents, fitter first.
        operator: Operator, or ``parent`` or ``ensemble`` for what the pair does by itself.
        align: Alignment before crossover.
        version: ``before`` or ``after`` fine-tuning.
        mean_return: Mean over the held-out episodes.
        agreement_parent: Share of validation states with the action of the fitter parent.
        agreement_teacher: Share of validation states with the action of the best teacher.
        failure: Why there is no network.
    """

    task: str
    seed: int
    regime: str
    pair: str
    operator: str
    align: str
    version: str
    mean_return: float
    agreement_parent: float = float("nan")
    agreement_teacher: float = float("nan")
    failure: str = ""


@dataclass
class Cross:
    """One child of the comparison on its way."""

    pair: tuple[Student, Student]
    plan: ChildPlan
    versions: dict[str, Genome]
    failure: str = ""


def measure(job: Job, regime: str, nursery: Nursery, scores: Scores) -> list[dict[str, object]]:
    """Breed, tune and play all children of a regime.

    Args:
        job: The task, the seed and the operators.
        regime: Where the students started.
        nursery: The students.
        scores: What has played already.

    Returns:
        A row for each version of each child, and for what each pair does by itself.
    """
    crosses = list(_crosses(job, nursery))
    raw = _conceived(nursery, crosses)
    _tune(nursery.context, crosses, raw)
    players = {genome.id: genome for cross in crosses for genome in cross.versions.values()}
    for student in nursery.students:
        players[student.genome.id] = student.genome
    scores.play(players)
    facts = _Facts(job, regime, nursery, players, scores)
    rows = [
        facts.row(cross.pair, cross.plan.operator.name, cross.plan.align, version, genome)
        for cross in crosses
        for version, genome in cross.versions.items()
    ]
    rows += [
        facts.missing(cross, version)
        for cross in crosses
        for version in ("before", "after")
        if version not in cross.versions
    ]
    for pair in combinations(nursery.students, 2):
        rows.append(facts.row(pair, "parent", "none", "before", pair[0].genome))
        rows.append(facts.ensemble(pair))
    return [asdict(row) for row in rows]


def _crosses(job: Job, nursery: Nursery) -> Iterator[Cross]:
    """Yield what is to be bred: pairs, fitter first, times operators times alignments."""
    index = 0
    operators = [two_parent(name) for name in job.operators]
    for pair in combinations(nursery.students, 2):
        others = [student for student in nursery.students if student not in pair]
        for operator in operators:
            if "ancestor" in operator.needs and nursery.ancestor is None:
                continue
            if operator.n_parents > len(nursery.students):
                continue
            parents = (*pair, *others)[: operator.n_parents]
            for align in ALIGNMENTS if operator.n_parents > 1 else ALIGNMENTS[:1]:
                if leaves_ancestor(operator.needs, align, operator.n_parents):
                    continue
                yield Cross(pair, _plan(nursery, pair, parents, operator, align, index), {})
                index += 1


def _plan(
    nursery: Nursery,
    pair: tuple[Student, Student],
    parents: Sequence[Student],
    operator: CrossoverOperator,
    align: str,
    index: int,
) -> ChildPlan:
    """Return how one child is born: as a run's children, but nothing of its training is drawn.

    The random stream is that of the pair and the operator, so both alignments cross with the same
    draws, and no operator changes those of another.
    """
    settings, seed = nursery.config.finetune, nursery.config.seed
    learning_rate, temperature = finetune_settings(nursery.config)
    # The engine's default, `inherit`, without its noise.
    weights = np.array(pair[0].teacher_weights) + 0.01
    numbers = (student.number for student in pair)
    return ChildPlan(
        kind="child",
        generation=1,
        index=index,
        parents=tuple(student.genome.id for student in parents),
        fitness=tuple(student.fitness for student in parents),
        operator=operator,
        align=align,  # type: ignore[arg-type]  # one of ALIGNMENTS
        mutation=None,
        finetune=FineTune(
            target="teachers",
            steps=settings.steps,
            learning_rate=learning_rate,
            temperature=temperature,
            hard_weight=settings.hard_weight,
            teacher_weights=tuple(float(weight) for weight in weights / weights.sum()),
            repair=settings.repair,
        ),
        seed=key(seed, Purpose.BIRTH, 1, *numbers, zlib.crc32(operator.name.encode())),
        ancestor=None if nursery.ancestor is None else nursery.ancestor.id,
    )


def _conceived(nursery: Nursery, crosses: Sequence[Cross]) -> list[tuple[Cross, Weights]]:
    """Cross all parents; return the children that there are, and note why the others are not."""
    context = nursery.context
    book = ParentBook(nursery.genomes, context.lessons.validation_states[:FACT_STATES])
    conceived: list[tuple[Cross, Weights]] = []
    for cross in crosses:
        try:
            child = conceive(context.spec, cross.plan, book)
            cross.versions["before"] = _genome(context, cross.plan, child)
        except (ConceptionError, GenomeError) as error:
            cross.failure = str(error)
        else:
            conceived.append((cross, child))
    return conceived


def _tune(context: Context, crosses: Sequence[Cross], raw: list[tuple[Cross, Weights]]) -> None:
    """Fine-tune all children that there are, each as it would be alone."""
    order = key(context.run_seed, Purpose.MINIBATCHES, 2, 1)
    for start in range(0, len(raw), BATCH):
        batch = raw[start : start + BATCH]
        pupils = [Pupil(weights, cross.plan.finetune) for cross, weights in batch]
        tuned, _ = imitate(context.spec, pupils, context.lessons, context.learning, order)
        for (cross, _), weights in zip(batch, tuned, strict=True):
            try:
                cross.versions["after"] = _genome(context, cross.plan, weights)
            except GenomeError as error:
                cross.failure = str(error)


def _genome(context: Context, plan: ChildPlan, weights: Weights) -> Genome:
    lineage = Lineage(plan.kind, 1, plan.index, plan.parents, plan.operator.name)
    return Genome.from_weights(context.spec, weights, lineage, context.vector_dtype)


class _Facts:
    """Makes rows out of what genomes did."""

    def __init__(
        self,
        job: Job,
        regime: str,
        nursery: Nursery,
        players: Mapping[str, Genome],
        scores: Scores,
    ) -> None:
        self._job, self._regime, self._nursery, self._scores = job, regime, nursery, scores
        self._states = nursery.context.lessons.validation_states
        self._actions = {name: self._acts(genome) for name, genome in players.items()}
        teachers = nursery.context.lessons.validation_targets  # (T, A, M)
        self._teacher = teachers[nursery.best_teacher].argmax(axis=0)

    def row(
        self,
        pair: tuple[Student, Student],
        operator: str,
        align: str,
        version: str,
        genome: Genome,
    ) -> Row:
        """Return the row of a network."""
        actions = self._actions[genome.id]
        return Row(
            *self._whose(pair),
            operator,
            align,
            version,
            self._scores[genome.id],
            float((actions == self._actions[pair[0].genome.id]).mean()),
            float((actions == self._teacher).mean()),
        )

    def missing(self, cross: Cross, version: str) -> Row:
        """Return the row of a network that there is not."""
        plan = cross.plan
        name, reason = plan.operator.name, cross.failure
        nan = float("nan")
        return Row(*self._whose(cross.pair), name, plan.align, version, nan, failure=reason)

    def ensemble(self, pair: tuple[Student, Student]) -> Row:
        """Return the row of both parents together, which costs twice as much to run."""
        context = self._nursery.context
        weights = [student.genome.to_weights() for student in pair]
        values = np.stack([q_values(context.spec, parent, self._states) for parent in weights])
        policy = EnsemblePolicy(context.spec, weights, targets(values, "advantages")[1])
        actions = policy.act(self._states[None])[0]
        return Row(
            *self._whose(pair),
            "ensemble",
            "none",
            "before",
            self._scores.play_together("+".join(student.genome.id for student in pair), policy),
            float((actions == self._actions[pair[0].genome.id]).mean()),
            float((actions == self._teacher).mean()),
        )

    def _whose(self, pair: tuple[Student, Student]) -> tuple[str, int, str, str]:
        numbers = f"{pair[0].number}+{pair[1].number}"
        return self._job.task, self._job.seed, self._regime, numbers

    def _acts(self, genome: Genome) -> NDArray[np.intp]:
        actions: NDArray[np.intp] = q_values(
            self._nursery.context.spec, genome.to_weights(), self._states
        ).argmax(axis=1)
        return actions
