"""What becomes of a batch that fails: the plan to blame is found, and its neighbors are spared.

Binary splitting, as in group testing (Hwang 1972, "A Method for Detecting All Defective Members in
a Population by Group Testing", Journal of the American Statistical Association 67): half of the
suspects are dispatched as a probe, and the others are held back. If the probe succeeds, the plan to
blame is among those that were held; if it fails, those that were held are parked, and the probe is
split. What was parked is dispatched as one batch once the search is over, and if that fails there
is another search.

One plan that ruins each batch of ``n`` that it is in costs at most ``ceil(log2(n)) + attempts``
dispatches, the parked batch included, besides the first one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.dispatch.executor import Batch, PlanT


def after_success(batch: Batch[PlanT]) -> list[Batch[PlanT]]:
    """Return what to dispatch after a batch that gave results: those that were held for it."""
    held = batch.held
    if held is None:
        return _those(batch.parked)
    if len(held.plans) == 1:
        # Nobody else is left to blame for the failure, so that it counts as one of its own.
        return [replace(held, attempts=1), *_those(batch.parked)]
    return [_probe(held, batch.parked)]


def after_failure(
    batch: Batch[PlanT], reason: str, attempts: int
) -> tuple[list[Batch[PlanT]], list[Any]]:
    """Decide what becomes of a batch that raised, crashed its worker, or took too long.

    The one bad plan is searched for; alone, or as the only one left to blame, it has ``attempts``
    tries.

    Returns:
        Batches to dispatch, and results to report.
    """
    others = Batch.joined([batch.held, batch.parked])
    if len(batch.plans) > 1:
        return [_probe(batch, others)], []
    failed = replace(batch, attempts=batch.attempts + 1, held=None, parked=None)
    if failed.attempts < attempts:
        return [failed, *_those(others)], []
    return _those(others), failed.abandoned("failed", reason)


def after_loss(
    batch: Batch[PlanT], reason: str, loss_attempts: int
) -> tuple[list[Batch[PlanT]], list[Any]]:
    """Decide what becomes of a batch whose machine was lost; see ``after_failure``."""
    lost = replace(batch, losses=batch.losses + 1)
    if lost.losses < loss_attempts:
        return [lost], []
    others = Batch.joined([batch.held, batch.parked])
    return _those(others), lost.abandoned("lost", f"{reason} {lost.losses} times")


def after_silence(
    batch: Batch[PlanT], reason: str, loss_attempts: int
) -> tuple[list[Batch[PlanT]], list[Any]]:
    """Decide what becomes of a batch that never answered; see ``after_failure``.

    Nobody knows whether its machine is gone or one of its plans keeps the worker from ending
    itself: the plan is searched for as if there were one, and a single plan counts as lost.
    """
    others = Batch.joined([batch.held, batch.parked])
    if len(batch.plans) > 1:
        return [_probe(batch, others)], []
    alone = replace(batch, held=None, parked=None)
    again, results = after_loss(alone, reason, loss_attempts)
    return [*again, *_those(others)], results


def _probe(suspects: Batch[PlanT], parked: Batch[PlanT] | None) -> Batch[PlanT]:
    """Return the first half of the suspects, which holds the second half back."""
    first, second = suspects.halves()
    return replace(first, held=second, parked=parked)


def _those(batch: Batch[PlanT] | None) -> list[Batch[PlanT]]:
    return [] if batch is None else [batch]
