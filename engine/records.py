"""How results become events of the journal and rows of the leaderboard."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.plain import plain
from engine.record_checks import check_result, check_row
from populations.leaderboard import Row
from populations.plans import ChildPlan, FineTune, Kind, Result
from populations.population import Member, Record
from populations.storage import genome_file_size, genome_from_bytes, genome_to_bytes

# Asked for once: every child has a result, a fine-tuning and a row.
_RESULT = tuple(field.name for field in dataclasses.fields(Result))
_FINETUNE = tuple(field.name for field in dataclasses.fields(FineTune))
_ROW = tuple(field.name for field in dataclasses.fields(Row) if field.init)


def result_to_event(result: Result) -> dict[str, Any]:
    """Return a result as plain JSON; the genome travels as base64 of its bytes."""
    fields = {name: getattr(result, name) for name in _RESULT if name != "genome"}
    genome = result.genome
    encoded = None if genome is None else base64.b64encode(genome_to_bytes(genome)).decode()
    return {"type": "result", "genome": encoded, **fields}


def result_from_event(event: Mapping[str, Any]) -> Result:
    """Rebuild a result from :func:`result_to_event`."""
    fields = {name: event[name] for name in _RESULT}
    check_result(fields)
    encoded = fields["genome"]
    if encoded is not None:
        fields["genome"] = genome_from_bytes(base64.b64decode(encoded))
    fields["returns"] = tuple(fields["returns"])
    fields["agreements"] = tuple(fields["agreements"])
    return Result(**fields)


def birth_row(run: str, plan: ChildPlan, result: Result) -> Row:
    """Return the row of a birth, whatever became of it."""
    bred = plan.kind in ("child", "control")
    better = plan.fitness[0] if bred and plan.fitness else None
    record = record_of(result)
    return Row(
        run=run,
        kind=plan.kind,
        generation=plan.generation,
        child=plan.index,
        parents=plan.parents,
        operator=plan.operator.name,
        operator_params=plain(plan.operator.params),
        align=plan.align,
        rescale=plan.rescale if bred else None,
        preset=plan.preset if bred else None,
        mutation=None
        if plan.mutation is None
        else {"name": plan.mutation.name, **plain(plan.mutation.params)},
        finetune={**finetune_cell(plan.finetune), "kept": result.tuned},
        delta_vs_better_parent=None if better is None or record is None else record.mean - better,
        **birth_columns(result, record),
    )


def birth_columns(result: Result, record: Record | None) -> dict[str, Any]:
    """Return the columns of a birth's row that its result tells, without the plan.

    Args:
        result: What became of the birth.
        record: Summary of its episodes; None where it has not played.
    """
    genome = result.genome
    return {
        "genome": None if genome is None else genome.id,
        "status": result.status,
        "reason": result.reason,
        **scores(record),
        "fitness_before_finetune": result.mean_before,
        "agreements": result.agreements,
        "kl": result.kl,
        "size_bytes": None if genome is None else genome_file_size(genome),
        "parameters": None if genome is None else genome.spec.n_parameters,
        "attempts": result.attempts,
        "node": result.node,
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
        "created_at": result.created_at,
    }


def member_row(
    run: str, member: Member, generation: int, result: Result, holdout: Record | None = None
) -> Row:
    """Return the row of a genome that was scored again, with its pooled fitness."""
    lineage = member.genome.lineage
    kind: Kind = "student" if lineage.kind == "student" else "child"
    return Row(
        run=run,
        kind=kind,
        generation=generation,
        genome=member.genome.id,
        status=result.status,
        reason=result.reason,
        parents=lineage.parents,
        operator=lineage.operator,
        **scores(member.record if result.status == "ok" else None),
        fitness_holdout=None if holdout is None else holdout.mean,
        fitness_holdout_sem=None if holdout is None else holdout.sem,
        size_bytes=genome_file_size(member.genome),
        parameters=member.genome.spec.n_parameters,
        attempts=result.attempts,
        node=result.node,
        wall_s=result.wall_s,
        cpu_s=result.cpu_s,
        created_at=result.created_at,
    )


def record_of(result: Result) -> Record | None:
    """Return the summary of a result's episodes; None where it has not played."""
    return Record.of(result.returns) if result.returns else None


def scores(record: Record | None) -> dict[str, Any]:
    """Return a record of episodes, or of none, as columns of a row."""
    if record is None:
        names = ("fitness", "fitness_sem", "episodes", "return_min", "return_max")
        return dict.fromkeys(names)
    return {
        "fitness": record.mean,
        "fitness_sem": record.sem,
        "episodes": record.episodes,
        "return_min": record.low,
        "return_max": record.high,
    }


def finetune_cell(finetune: FineTune) -> dict[str, Any]:
    """Return a fine-tuning as the leaderboard shows it."""
    return {name: getattr(finetune, name) for name in _FINETUNE}


def row_to_event(row: Row) -> dict[str, Any]:
    """Return a row as plain JSON."""
    fields = ((name, getattr(row, name)) for name in _ROW)
    return {name: value for name, value in fields if value is not None}


def row_from_event(event: Mapping[str, Any]) -> Row:
    """Rebuild a row from :func:`row_to_event`."""
    check_row(event)
    return Row(**event)


def now() -> str:
    """Return the time as the leaderboard shows it, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
