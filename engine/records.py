"""How results become events of the journal and rows of the leaderboard."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from populations.leaderboard import Row
from populations.plans import ChildPlan, FineTune, Kind, Result
from populations.population import Member
from populations.storage import genome_file_size, genome_from_bytes, genome_to_bytes


def result_to_event(result: Result) -> dict[str, Any]:
    """Return a result as plain JSON; the genome travels as base64 of its bytes."""
    fields = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name != "genome"
    }
    genome = result.genome
    encoded = None if genome is None else base64.b64encode(genome_to_bytes(genome)).decode()
    return {"type": "result", "created_at": _now(), "genome": encoded, **fields}


def result_from_event(event: Mapping[str, Any]) -> Result:
    """Rebuild a result from :func:`result_to_event`."""
    fields = {field.name: event[field.name] for field in dataclasses.fields(Result)}
    encoded = fields["genome"]
    if encoded is not None:
        fields["genome"] = genome_from_bytes(base64.b64decode(encoded))
    fields["returns"] = tuple(fields["returns"])
    fields["agreements"] = tuple(fields["agreements"])
    return Result(**fields)


def birth_row(run: str, plan: ChildPlan, result: Result) -> Row:
    """Return the row of a birth, whatever became of it."""
    genome = result.genome
    better = plan.fitness[0] if plan.kind in ("child", "control") and plan.fitness else None
    fitness = scores(result.returns)
    return Row(
        run=run,
        kind=plan.kind,
        generation=plan.generation,
        child=plan.index,
        genome=None if genome is None else genome.id,
        status=result.status,
        reason=result.reason,
        parents=plan.parents,
        operator=plan.operator.name,
        operator_params=plan.operator.params,
        align=plan.align,
        mutation=None
        if plan.mutation is None
        else {"name": plan.mutation.name, **plan.mutation.params},
        finetune={**finetune_cell(plan.finetune), "kept": result.tuned},
        **fitness,
        fitness_before_finetune=result.mean_before,
        delta_vs_better_parent=None
        if better is None or not result.returns
        else fitness["fitness"] - better,
        agreements=result.agreements,
        kl=result.kl,
        size_bytes=None if genome is None else genome_file_size(genome),
        parameters=None if genome is None else genome.spec.n_parameters,
        attempts=result.attempts,
        node=result.node,
        wall_s=result.wall_s,
        cpu_s=result.cpu_s,
        created_at=_now(),
    )


def member_row(
    run: str, member: Member, generation: int, result: Result, holdout: Sequence[float] = ()
) -> Row:
    """Return the row of a genome that was scored again, with its pooled fitness."""
    lineage = member.genome.lineage
    held_out = scores(holdout)
    kind: Kind = "student" if lineage.kind == "student" else "child"
    return Row(
        run=run,
        kind=kind,
        generation=generation,
        genome=member.genome.id,
        parents=lineage.parents,
        operator=lineage.operator,
        **scores(member.returns),
        fitness_holdout=held_out["fitness"],
        fitness_holdout_sem=held_out["fitness_sem"],
        size_bytes=genome_file_size(member.genome),
        parameters=member.genome.spec.n_parameters,
        attempts=result.attempts,
        node=result.node,
        wall_s=result.wall_s,
        cpu_s=result.cpu_s,
        created_at=_now(),
    )


def scores(returns: Sequence[float] | NDArray[np.float64]) -> dict[str, Any]:
    """Return mean, standard error, number, minimum and maximum of returns, as columns of a row."""
    if len(returns) == 0:
        names = ("fitness", "fitness_sem", "episodes", "return_min", "return_max")
        return dict.fromkeys(names)
    values = np.array(returns, np.float64)
    sem = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return {
        "fitness": float(values.mean()),
        "fitness_sem": sem,
        "episodes": len(values),
        "return_min": float(values.min()),
        "return_max": float(values.max()),
    }


def finetune_cell(finetune: FineTune) -> dict[str, Any]:
    """Return a fine-tuning as the leaderboard shows it."""
    return dataclasses.asdict(finetune)


def row_to_event(row: Row) -> dict[str, Any]:
    """Return a row as plain JSON."""
    fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.init}
    return {name: value for name, value in fields.items() if value is not None}


def row_from_event(event: Mapping[str, Any]) -> Row:
    """Rebuild a row from :func:`row_to_event`."""
    return Row(**event)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
