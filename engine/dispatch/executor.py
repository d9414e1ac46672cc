"""What an executor is, and what happens to a batch that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.breeding import Context
from populations.genome import Genome
from populations.plans import EvaluationPlan, Plan, Result, Status


@dataclass(frozen=True)
class Batch:
    """Plans of one phase and generation that travel together, with the genomes that they name.

    Attributes:
        plans: The plans.
        genomes: Genomes by id.
        attempts: How often the batch was dispatched and failed; the fault may be its own.
        losses: How often the machine under it was lost; never its own fault.
    """

    plans: tuple[Plan, ...]
    genomes: Mapping[str, Genome]
    attempts: int = 0
    losses: int = 0

    @classmethod
    def of(cls, plans: Sequence[Plan], genomes: Mapping[str, Genome]) -> Batch:
        """Pack plans with just those of the ``genomes`` that they name."""
        named = {name for plan in plans for name in _names(plan)}
        return cls(tuple(plans), {name: genomes[name] for name in sorted(named)})

    def halves(self) -> tuple[Batch, Batch]:
        """Split in two; both halves start with a clean record."""
        middle = len(self.plans) // 2
        return Batch.of(self.plans[:middle], self.genomes), Batch.of(
            self.plans[middle:], self.genomes
        )

    def abandoned(self, status: Status, reason: str) -> list[Result]:
        """Return a result for each plan that says why there is none."""
        return [
            Result(
                plan.phase,
                plan.generation,
                plan.index,
                status,
                reason,
                attempts=self.attempts + self.losses,
            )
            for plan in self.plans
        ]


def after_failure(batch: Batch, reason: str, attempts: int) -> tuple[list[Batch], list[Result]]:
    """Decide what becomes of a batch that raised, crashed its worker, or took too long.

    The batch is halved until the one bad child is alone; alone, it has ``attempts`` tries.

    Returns:
        Batches to dispatch again, and results to report.
    """
    if len(batch.plans) > 1:
        return list(batch.halves()), []
    failed = Batch(batch.plans, batch.genomes, batch.attempts + 1, batch.losses)
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
        self, context: Context, batches: Sequence[Batch], stop: threading.Event
    ) -> Iterator[list[Result]]:
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


def _names(plan: Plan) -> tuple[str, ...]:
    return (plan.genome,) if isinstance(plan, EvaluationPlan) else plan.parents
