"""What an executor is, and what happens to a batch that fails.

Executors know nothing of what is planned: a context does the work, and a plan knows how to say
that nothing came of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, replace
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from populations.genome import Genome


class Plan(Protocol):
    """One piece of work."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the genomes that it cannot be carried out without."""
        ...

    def abandoned(self, status: Literal["failed", "lost"], reason: str, attempts: int) -> Any:
        """Return a result that says why there is none."""
        ...


class Result(Protocol):
    """What became of one plan: a dataclass that also tells where it ran, and at which attempt."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def node(self) -> str:
        """Name of the machine."""
        ...

    @property
    def attempts(self) -> int:
        """How often the plan was dispatched."""
        ...


PlanT = TypeVar("PlanT", bound=Plan)
PlanT_contra = TypeVar("PlanT_contra", bound=Plan, contravariant=True)
ResultT = TypeVar("ResultT", bound=Result)


class Context(Protocol[PlanT_contra, ResultT]):
    """What all tasks of a run share, and how they do their work; sent to every worker once."""

    def work(self, plans: Sequence[PlanT_contra], genomes: Mapping[str, Genome]) -> list[ResultT]:
        """Carry out a batch.

        Args:
            plans: The batch.
            genomes: Every genome that the plans need, by id.

        Returns:
            One result per plan, in their order.
        """
        ...


class Limits(Protocol):
    """How often and for how long a batch is tried; ``DispatchConfig`` has the meanings."""

    @property
    def attempts(self) -> int:
        """Times that a single plan may crash its worker or run out of time."""
        ...

    @property
    def loss_attempts(self) -> int:
        """Times that the machine under a plan may be lost."""
        ...

    @property
    def task_timeout_s(self) -> float:
        """Seconds for one batch."""
        ...

    @property
    def stall_timeout_s(self) -> float:
        """Seconds without any result after which a line says what is waited for."""
        ...

    @property
    def speculation(self) -> float:
        """Times the usual duration after which a batch is started a second time; 0: never."""
        ...


@dataclass(frozen=True)
class Batch(Generic[PlanT]):
    """Plans that travel together, with the genomes that they need.

    Attributes:
        plans: The plans.
        genomes: Genomes by id.
        attempts: How often the batch was dispatched and failed; the fault may be its own.
        losses: How often the machine under it was lost; never its own fault.
        copies: How often it was started beside itself, because it took so long.
    """

    plans: tuple[PlanT, ...]
    genomes: Mapping[str, Genome]
    attempts: int = 0
    losses: int = 0
    copies: int = 0

    @property
    def failures(self) -> int:
        """How often it was dispatched and gave no results."""
        return self.attempts + self.losses + self.copies

    @classmethod
    def of(cls, plans: Sequence[PlanT], genomes: Mapping[str, Genome]) -> Batch[PlanT]:
        """Pack plans with just those of the ``genomes`` that they need."""
        needed = {name for plan in plans for name in plan.needs}
        return cls(tuple(plans), {name: genomes[name] for name in sorted(needed)})

    def halves(self) -> tuple[Batch[PlanT], Batch[PlanT]]:
        """Split in two; both halves start with a clean record."""
        middle = len(self.plans) // 2
        return Batch.of(self.plans[:middle], self.genomes), Batch.of(
            self.plans[middle:], self.genomes
        )

    def abandoned(self, status: Literal["failed", "lost"], reason: str) -> list[Any]:
        """Return a result for each plan that says why there is none."""
        return [plan.abandoned(status, reason, self.failures) for plan in self.plans]


def after_loss(
    batch: Batch[PlanT], reason: str, loss_attempts: int
) -> tuple[list[Batch[PlanT]], list[Any]]:
    """Decide what becomes of a batch whose machine was lost; see ``after_failure``."""
    lost = replace(batch, losses=batch.losses + 1)
    if lost.losses < loss_attempts:
        return [lost], []
    return [], lost.abandoned("lost", f"{reason} {lost.losses} times")


def after_silence(
    batch: Batch[PlanT], reason: str, loss_attempts: int
) -> tuple[list[Batch[PlanT]], list[Any]]:
    """Decide what becomes of a batch that never answered; see ``after_failure``.

    Nobody knows whether its machine is gone or one of its plans keeps the worker from ending
    itself: it is halved as if a plan were to blame, and a single plan counts as lost.
    """
    if len(batch.plans) > 1:
        return list(batch.halves()), []
    return after_loss(batch, reason, loss_attempts)


def after_failure(
    batch: Batch[PlanT], reason: str, attempts: int
) -> tuple[list[Batch[PlanT]], list[Any]]:
    """Decide what becomes of a batch that raised, crashed its worker, or took too long.

    The batch is halved until the one bad plan is alone; alone, it has ``attempts`` tries.

    Returns:
        Batches to dispatch again, and results to report.
    """
    if len(batch.plans) > 1:
        return list(batch.halves()), []
    failed = replace(batch, attempts=batch.attempts + 1)
    if failed.attempts < attempts:
        return [failed], []
    return [], failed.abandoned("failed", reason)


class Executor(Protocol):
    """Carries out batches somewhere.

    Every plan that is not interrupted gets exactly one result, in whatever order.
    """

    @property
    def n_workers(self) -> int:
        """How many batches run at the same time."""
        ...

    def run(
        self,
        context: Context[PlanT, ResultT],
        batches: Sequence[Batch[PlanT]],
        stop: threading.Event,
    ) -> Iterator[list[ResultT]]:
        """Yield the results of each batch as it finishes.

        Args:
            context: What all tasks of the run share.
            batches: The work.
            stop: Once set, nothing new is started; what is in flight is still yielded.
        """
        ...

    def close(self) -> None:
        """Give back what was started."""
        ...
