"""The whole birth of a batch of networks: a plain function that any worker can run.

Tasks are pure: the same plans, parents and context give the same bytes on any worker, in any
batch, after any retry. Nothing in a batch depends on its neighbors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from engine.conception import ParentBook, conceive
from engine.config import EnvironmentConfig, LearningConfig
from engine.errors import ConceptionError
from engine.learning.imitation import Lessons, Pupil, imitate
from engine.learning.targets import targets
from engine.playing.evaluation import evaluate
from engine.playing.policies import StackedPolicy
from engine.seeding import Purpose, episode_seeds, key
from populations.errors import GenomeError
from populations.genome import Genome, Lineage, VectorDtype
from populations.network import NetworkSpec, Weights
from populations.plans import ChildPlan, EvaluationPlan, Plan, Result, Status
from strategies.forward import q_values

# States that parents are compared on: enough for a correlation, few enough to cost nothing.
FACT_STATES = 256
# Numbers of the phases in the keys of random streams; part of every recorded run.
PHASES = {"ancestor": 0, "students": 1, "children": 2}


@dataclass(frozen=True)
class Context:
    """What all tasks of a run share; sent to every worker once.

    Attributes:
        run_seed: The run's seed.
        environment: The task.
        learning: Settings of the training loop.
        spec: Architecture of every genome.
        vector_dtype: How biases and normalizations are kept.
        lessons: States and the teachers' values on them.
        episodes: Episodes of a generation.
        holdout_episodes: Held-out episodes.
    """

    run_seed: int
    environment: EnvironmentConfig
    learning: LearningConfig
    spec: NetworkSpec
    vector_dtype: VectorDtype
    lessons: Lessons
    episodes: int
    holdout_episodes: int

    def seeds(self, phase: str, generation: int) -> tuple[int, ...]:
        """Return the episodes that a phase plays; common to all genomes of a generation."""
        if phase == "holdout":
            return episode_seeds(key(self.run_seed, Purpose.HOLDOUT), self.holdout_episodes)
        return episode_seeds(key(self.run_seed, Purpose.EPISODES, generation), self.episodes)

    def work(self, plans: Sequence[Plan], genomes: Mapping[str, Genome]) -> list[Result]:
        """Carry out a batch of plans of one phase and generation.

        Args:
            plans: The batch.
            genomes: Every genome that the plans need, by id.

        Returns:
            One result per plan, in their order.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        births = [plan for plan in plans if isinstance(plan, ChildPlan)]
        evaluations = [plan for plan in plans if isinstance(plan, EvaluationPlan)]
        results = {
            result.key: result
            for result in (
                *(breed_batch(self, births, genomes) if births else ()),
                *(_play_again(self, evaluations, genomes) if evaluations else ()),
            )
        }
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return [
            replace(results[plan.key], wall_s=wall / len(plans), cpu_s=cpu / len(plans))
            for plan in plans
        ]


def breed_batch(
    context: Context, plans: Sequence[ChildPlan], parents: Mapping[str, Genome]
) -> list[Result]:
    """Give birth to a batch: align, cross, mutate, repair, train, quantize, play, keep the better.

    Args:
        context: What all tasks of the run share.
        plans: Plans of one phase and generation.
        parents: Every parent that the plans name, by id.

    Returns:
        One result per plan, in their order.
    """
    torch.set_num_threads(1)  # workers share cores, and thread counts may change the bytes
    births = [_Birth(context, plan, parents) for plan in plans]
    book = ParentBook(parents, context.lessons.validation_states[:FACT_STATES])
    for birth in births:
        birth.conceive(book)
    for steps in sorted({b.plan.finetune.steps for b in births if b.learns}):
        _train(context, [b for b in births if b.learns and b.plan.finetune.steps == steps])
    for birth in births:
        birth.quantize()
    _play(context, births)
    return [birth.result() for birth in births]


class _Birth:
    """One child on its way into the world."""

    def __init__(self, context: Context, plan: ChildPlan, genomes: Mapping[str, Genome]) -> None:
        self.context = context
        self.plan = plan
        self.parents = [genomes[parent] for parent in plan.parents]
        self.failure: tuple[Status, str] | None = None
        self.raw: Weights | None = None
        self.tuned: Weights | None = None
        self.divergence: float | None = None
        self.versions: dict[str, Genome] = {}
        self.actions: dict[str, NDArray[np.intp]] = {}
        self.returns: dict[str, NDArray[np.float64]] = {}

    @property
    def learns(self) -> bool:
        """Whether the child is repaired or trained."""
        return self.raw is not None and self.plan.finetune.target != "none"

    def conceive(self, book: ParentBook) -> None:
        """Make the child's first weights, or note why there are none."""
        try:
            self.raw = conceive(self.context.spec, self.plan, book)
        except ConceptionError as error:
            self.failure = ("failed", str(error))

    def pupil(self) -> Pupil:
        """Return the child as the training loop wants it."""
        assert self.raw is not None, "only a child that was conceived can learn"
        own = None
        if self.plan.finetune.target == "better_parent":
            lessons, spec = self.context.lessons, self.context.spec
            kind = self.context.learning.targets
            better = self.parents[0].to_weights()
            seen = np.concatenate([lessons.train_states, lessons.validation_states])
            values = targets(q_values(spec, better, seen)[None], kind)[0][0].T  # (A, N + M)
            split = len(lessons.train_states)
            own = (values[:, :split], values[:, split:])
        return Pupil(self.raw, self.plan.finetune, own)

    def quantize(self) -> None:
        """Turn what there is into genomes; a version that always acts the same is dropped."""
        if self.failure is not None:
            return
        versions = {"raw": self.raw, "tuned": self.tuned}
        if self.plan.phase != "children" and self.tuned is not None:
            del versions["raw"]  # before distillation a student is its ancestor, or noise
        verdict: tuple[Status, str] = ("rejected", "takes the same action on all states")
        for name, weights in versions.items():
            if weights is None:
                continue
            try:
                genome = self._genome(weights)
            except GenomeError as error:
                verdict = ("failed", str(error))
                continue
            # The ancestor only lends its weights to the students; it need not play well.
            actions = self._actions(genome)
            if self.plan.kind == "ancestor" or np.ptp(actions) > 0:
                self.versions[name] = genome
                self.actions[name] = actions
        if not self.versions:
            self.failure = verdict

    def _genome(self, weights: Weights) -> Genome:
        plan = self.plan
        basis = self.parents[0].lineage.basis if self.parents else ""
        if plan.align == "none" and any(p.lineage.basis != basis for p in self.parents):
            basis = ""  # units of different order were mixed: the child has an order of its own
        lineage = Lineage(
            plan.kind, plan.generation, plan.index, plan.parents, plan.operator.name, basis
        )
        return Genome.from_weights(self.context.spec, weights, lineage, self.context.vector_dtype)

    def _actions(self, genome: Genome) -> NDArray[np.intp]:
        states = self.context.lessons.validation_states
        values = q_values(self.context.spec, genome.to_weights(), states)
        actions: NDArray[np.intp] = np.argmax(values, axis=1)
        return actions

    def result(self) -> Result:
        """Keep the better version and report."""
        plan = self.plan
        if self.failure is not None:
            status, reason = self.failure
            return Result(plan.phase, plan.generation, plan.index, status, reason)
        kept = max(self.returns, key=lambda name: (self.returns[name].mean(), name == "tuned"))
        genome = self.versions[kept]
        actions = self.actions[kept]
        best = self.context.lessons.validation_targets.argmax(axis=1)  # (T, M)
        raw = self.returns.get("raw")
        return Result(
            phase=plan.phase,
            generation=plan.generation,
            index=plan.index,
            status="ok",
            genome=genome,
            returns=tuple(float(value) for value in self.returns[kept]),
            mean_before=None if raw is None else float(raw.mean()),
            tuned=kept == "tuned",
            agreements=tuple(float((actions == teacher).mean()) for teacher in best),
            kl=self.divergence if kept == "tuned" else None,
        )


def _train(context: Context, births: Sequence[_Birth]) -> None:
    """Train births of one phase, generation and number of steps as one stack."""
    plan = births[0].plan
    order = key(context.run_seed, Purpose.MINIBATCHES, PHASES[plan.phase], plan.generation)
    trained, divergences = imitate(
        context.spec, [birth.pupil() for birth in births], context.lessons, context.learning, order
    )
    for birth, weights, divergence in zip(births, trained, divergences, strict=True):
        birth.tuned = weights
        birth.divergence = float(divergence) if np.isfinite(divergence) else None


def _play(context: Context, births: Sequence[_Birth]) -> None:
    """Let every version of every birth play the generation's episodes, all in one stack."""
    players = [(birth, name) for birth in births for name in birth.versions if not birth.failure]
    if not players:
        return
    policy = StackedPolicy(
        context.spec, [birth.versions[name].to_weights() for birth, name in players]
    )
    plan = births[0].plan
    played = evaluate(context.environment, policy, context.seeds(plan.phase, plan.generation))
    for (birth, name), returns in zip(players, played.returns, strict=True):
        birth.returns[name] = returns


def _play_again(
    context: Context, plans: Sequence[EvaluationPlan], genomes: Mapping[str, Genome]
) -> list[Result]:
    """Let genomes that exist play the episodes of a generation, or the held-out ones."""
    torch.set_num_threads(1)
    policy = StackedPolicy(context.spec, [genomes[plan.genome].to_weights() for plan in plans])
    played = evaluate(
        context.environment, policy, context.seeds(plans[0].phase, plans[0].generation)
    )
    return [
        Result(
            plan.phase,
            plan.generation,
            plan.index,
            "ok",
            returns=tuple(float(value) for value in returns),
        )
        for plan, returns in zip(plans, played.returns, strict=True)
    ]
