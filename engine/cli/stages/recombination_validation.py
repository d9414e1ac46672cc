"""``cultivar validate-recombination``: what a child has kept of its parents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli.stages.options import (
    FILE,
    Decorator,
    finish,
    k_values_option,
    threshold_options,
    validator_options,
)
from engine.cli.stages.outcome import outcome
from engine.cli.stages.value_types import COUNT_OR_ZERO
from engine.stages.validation.thresholds import RecombinationThresholds

SHOW = {"show_default": True}


def _quantized(role: str) -> Decorator:
    return click.option(
        f"--{role}-quantized", is_flag=True, help="Fail if its file is not quantized."
    )


@click.command(context_settings=SHOW)
@click.option("--checkpoint-dir", type=FILE, help="Where the child is, and perhaps its parents.")
@click.option("--parent-a-ckpt", type=FILE, help="Parent A; default: as in the child's sidecar.")
@click.option("--parent-b-ckpt", type=FILE, help="Parent B; likewise.")
@click.option("--child-ckpt", type=FILE, help="The child.")
@_quantized("parent-a")
@_quantized("parent-b")
@_quantized("child")
@k_values_option()
@click.option(
    "--eval-batch-size",
    type=COUNT_OR_ZERO,
    default=0,
    help="Accepted: the outcome does not depend on how states are batched.",
)
@click.option(
    "--include-parent-baseline", is_flag=True, help="Compare the parents with each other, too."
)
@threshold_options(RecombinationThresholds)
@click.option("--env", "environment", help="What to play; default: as in the sidecars.")
@click.option(
    "--episodes",
    "n_episodes",
    type=COUNT_OR_ZERO,
    default=100,
    help="Episodes of each network, where an environment is known.",
)
@validator_options("reports/recombination")
def validate_recombination(
    checkpoint_dir: Path | None,
    n_inputs: int | None,
    n_actions: int | None,
    hidden: int | None,
    n_states: int,
    states_file: Path | None,
    seed: int,
    use_training_states: bool,
    k_values: tuple[int, ...],
    latency_warmup: int,
    latency_repeats: int,
    eval_batch_size: int,
    include_parent_baseline: bool,
    thresholds: RecombinationThresholds,
    environment: str | None,
    n_episodes: int,
    allow_unsafe_unpickle: bool,
    report_dir: Path,
    report_only: bool,
    **roles: Any,
) -> int:
    """Judge a child against both of its parents, on held-out states.

    Exits with 1 where the child misses a threshold against either parent, unless --report-only: one
    that imitates parent A alone is likely to, unless the parents agree anyway. Networks may be
    float or int8, and of different widths. Where the environment is known, from --env or from
    the sidecars, child, parents and the ensemble of both parents play it.
    """
    from engine.stages.distillation.teachers import Sizes
    from engine.stages.recombination.family_validation import (
        ROLES,
        Judging,
        find_family,
        validate_family,
        write_validation,
    )
    from engine.stages.validation.timing import LatencySettings

    given = {name: roles[f"{name}_ckpt"] for name in ROLES}
    found = find_family(
        checkpoint_dir,
        {name: path for name, path in given.items() if path is not None},
        frozenset(name for name in ROLES if roles[f"{name}_quantized"]),
        Sizes(n_inputs, n_actions, hidden),
        allow_unsafe_unpickle,
    )
    judging = Judging(
        n_states=n_states,
        seed=seed,
        states_file=states_file,
        use_training_states=use_training_states,
        k_values=k_values,
        latency=LatencySettings(latency_warmup, latency_repeats),
        thresholds=thresholds,
        include_parent_baseline=include_parent_baseline,
        environment=environment,
        episodes=n_episodes,
    )
    settings = {"report_only": report_only, "allow_unsafe_unpickle": allow_unsafe_unpickle}
    report = {**validate_family(found, judging), **settings}
    for line in outcome("child", report):
        click.echo(line)
    summary = report["summary"]
    click.echo(
        f"  like either parent: {summary['oracle_agreement']:.2%} of states; parents with each "
        f"other: {summary['parents_agree']:.2%}"
    )
    for path in write_validation(report_dir, report):
        click.echo(f"wrote {path}")
    return finish(report["passed"], report_only)
