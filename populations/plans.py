"""What travels between the driver and a worker: plans on the way out, results on the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from populations.genome import Genome
from populations.network import Weights
from populations.reasons import shortened

Kind = Literal["teacher", "ensemble", "ancestor", "student", "child", "control"]
Status = Literal["ok", "rejected", "failed", "lost"]
Align = Literal["none", "weights", "activations", "auto"]
Target = Literal["teachers", "better_parent", "none"]


@dataclass(frozen=True, slots=True)
class FineTune:
    """How one network is trained towards its target; drawn per child.

    Attributes:
        target: Whose values are imitated: the weighted ``teachers``, the fitter parent
            (``better_parent``), or nobody (``none``: no training at all).
        steps: Gradient steps; 0 trains nothing but still repairs the output layer.
        learning_rate: Adam learning rate at the first step.
        temperature: Softmax temperature, in units of the cached targets.
        hard_weight: Share of the cross-entropy on the target's best action, in ``[0, 1]``; the
            rest of the loss is the KL divergence at ``temperature``.
        teacher_weights: Weight of each teacher in the target, non-negative, summing to one.
        repair: Whether the output layer is refitted in closed form before training.
    """

    target: Target
    steps: int
    learning_rate: float
    temperature: float
    hard_weight: float
    teacher_weights: tuple[float, ...]
    repair: bool = True


class Operator(Protocol):
    """What a plan knows of a crossover operator; the contract is in ``strategies``."""

    @property
    def name(self) -> str:
        """Name in configurations and on the leaderboard."""
        ...

    @property
    def params(self) -> dict[str, Any]:
        """Its parameters by name."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads of its parents besides their weights."""
        ...

    @property
    def same_widths(self) -> bool:
        """Whether all parents must share one architecture."""
        ...

    def cross(self, parents: Any, rng: np.random.Generator) -> Weights:
        """Return the weights of a child."""
        ...


class Mutator(Protocol):
    """What a plan knows of a mutation; the contract is in ``strategies``."""

    @property
    def name(self) -> str:
        """Name in configurations and on the leaderboard."""
        ...

    @property
    def params(self) -> dict[str, Any]:
        """Its parameters by name."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads of a child besides its weights."""
        ...

    def mutate(self, child: Any, rng: np.random.Generator) -> Weights:
        """Return the weights of a mutant."""
        ...


class _Planned:
    """What all plans know of themselves."""

    __slots__ = ()

    phase: str
    generation: int
    index: int

    @property
    def key(self) -> tuple[str, int, int]:
        """Phase, generation and index, as :attr:`Result.key` gives them back."""
        return (self.phase, self.generation, self.index)

    def abandoned(self, status: Status, reason: str, attempts: int) -> Result:
        """Return a result that says why there is none."""
        return Result(*self.key, status, shortened(reason), attempts=attempts)


@dataclass(frozen=True, slots=True)
class ChildPlan(_Planned):
    """How one network is to be born.

    Attributes:
        kind: ``ancestor``, ``student``, ``child`` or ``control``.
        generation: Generation of the birth.
        index: Number of the child within its generation, unique over all kinds.
        parents: Ids of the parents, fitter first; empty for a network from scratch.
        fitness: Fitness of each parent when it was chosen.
        operator: The crossover operator *instance*; it travels to the worker.
        align: Alignment of the other parents to the first one.
        mutation: The mutation instance, or None.
        finetune: How the child is trained.
        seed: Key of its random stream: the run seed and the spawn key. Worker and batch never
            enter.
        phase: ``ancestor``, ``students`` or ``children``: which of the run's random draws, shared
            by all births of one phase and generation, belong to it.
        ancestor: Id of the genome whose order of hidden units all parents keep, where the operator
            needs it and there is one.
        rescale: Whether the child's hidden units get the interpolated statistics of the parents'.
        preset: Name of the fine-tuning preset that ``finetune`` was drawn from.
    """

    kind: Kind
    generation: int
    index: int
    parents: tuple[str, ...]
    fitness: tuple[float, ...]
    operator: Operator
    align: Align
    mutation: Mutator | None
    finetune: FineTune
    seed: tuple[int, ...]
    phase: str = "children"
    ancestor: str | None = None
    rescale: bool = False
    preset: str = "default"

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the genomes that it cannot be carried out without."""
        return self.parents if self.ancestor is None else (*self.parents, self.ancestor)


@dataclass(frozen=True, slots=True)
class EvaluationPlan(_Planned):
    """One genome that is to play the episodes of a generation again, or the held-out ones.

    Attributes:
        generation: Generation whose episodes are played.
        index: Number within the phase.
        genome: Id of the genome.
        phase: ``elites`` (the generation's episodes) or ``holdout``.
    """

    generation: int
    index: int
    genome: str
    phase: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the genomes that it cannot be carried out without."""
        return (self.genome,)


Plan = ChildPlan | EvaluationPlan


@dataclass(slots=True)
class Result:
    """What became of one plan.

    Attributes:
        phase: Phase of the plan.
        generation: Generation of the plan.
        index: Index of the plan.
        status: ``ok``, ``rejected`` (not worth playing), ``failed`` (the genome's fault) or
            ``lost`` (the cluster's).
        reason: Why it is not ``ok``, one sentence.
        genome: The new genome; None for an evaluation and for what did not succeed.
        returns: Return of each episode, undiscounted, in the order of the episode seeds.
        mean_before: Mean return before repair and fine-tuning, or None where it was not played.
        tuned: Whether the fine-tuned version was kept rather than the one before it.
        agreements: Share of the validation states where the genome takes the action of each
            teacher, in ``[0, 1]``.
        kl: Mean KL divergence from the target on the validation states, in nats, at the plan's
            temperature; None where the trained version was not kept.
        attempts: How often the plan was dispatched. Volatile.
        node: Where it ran. Volatile.
        wall_s: Its share of the batch's elapsed seconds. Volatile.
        cpu_s: Its share of the batch's CPU seconds. Volatile.
        created_at: When the driver recorded it, ISO 8601 in UTC. Volatile.
    """

    phase: str
    generation: int
    index: int
    status: Status
    reason: str = ""
    genome: Genome | None = None
    returns: tuple[float, ...] = ()
    mean_before: float | None = None
    tuned: bool = False
    agreements: tuple[float, ...] = ()
    kl: float | None = None
    attempts: int = 1
    node: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    created_at: str = ""

    @property
    def key(self) -> tuple[str, int, int]:
        """Phase, generation and index: what identifies the plan within a run."""
        return (self.phase, self.generation, self.index)
