"""What an executor is, and what it is given to do.

Executors know nothing of what is planned: a context does the work, and a plan knows how to say
that nothing came of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from populations.genome import Genome


class Plan(Protocol):
    """One piece of work."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the genomes that it cannot be carried out without."""
        ...

    @property
    def phase(self) -> str:
        """What it is part of; plans of one phase take about as long each."""
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
        losses: How often the machine under it was lost, or was none that may be used; never its
            own fault.
        copies: How often it was started beside itself, because it took so long.
        held: While the plan to blame for a failure is searched for: the others that it may be,
            held back until this batch has an outcome. See ``isolation``.
        parked: Meanwhile, those that it is probably not; dispatched when the search is over.
    """

    plans: tuple[PlanT, ...]
    genomes: Mapping[str, Genome]
    attempts: int = 0
    losses: int = 0
    copies: int = 0
    held: Batch[PlanT] | None = None
    parked: Batch[PlanT] | None = None

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
        first, second = self.plans[:middle], self.plans[middle:]
        return Batch.of(first, self.genomes), Batch.of(second, self.genomes)

    @classmethod
    def joined(cls, parts: Sequence[Batch[PlanT] | None]) -> Batch[PlanT] | None:
        """Make one of several, with a clean record; None where there is none."""
        found = [part for part in parts if part is not None]
        if not found:
            return None
        genomes = {name: genome for part in found for name, genome in part.genomes.items()}
        return cls(tuple(plan for part in found for plan in part.plans), genomes)

    def abandoned(self, status: Literal["failed", "lost"], reason: str) -> list[Any]:
        """Return a result for each plan that says why there is none."""
        return [plan.abandoned(status, reason, self.failures) for plan in self.plans]


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
        """Yield the results of batches as they finish; those that arrive together in one list.

        Args:
            context: What all tasks of the run share.
            batches: The work.
            stop: Once set, nothing new is started; what is in flight is still yielded.
        """
        ...

    def close(self) -> None:
        """Give back what was started."""
        ...
