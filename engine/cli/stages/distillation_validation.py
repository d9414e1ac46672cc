"""``cultivar validate-distillation``: what students have kept of their teachers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.stages.options import (
    FILE,
    finish,
    k_values_option,
    labels,
    pair_option,
    threshold_options,
    validator_options,
)
from engine.cli.stages.outcome import outcome
from engine.cli.stages.value_types import COUNT, COUNT_OR_ZERO, NOT_NEGATIVE, SEED
from engine.errors import StageError
from engine.stages.validation.thresholds import DistillationThresholds

if TYPE_CHECKING:
    from engine.stages.distillation.pair_validation import Episodes

SHOW = {"show_default": True}


@click.command(context_settings=SHOW)
@pair_option()
@click.option("--checkpoint-dir", type=FILE, help="Where student_A.pt and student_B.pt are.")
@click.option("--parent-a-ckpt", type=FILE, help="Teacher A; default: as in the sidecar.")
@click.option("--student-a-ckpt", type=FILE, help="Student A.")
@click.option("--parent-b-ckpt", type=FILE, help="Teacher B; default: as in the sidecar.")
@click.option("--student-b-ckpt", type=FILE, help="Student B.")
@k_values_option()
@click.option("--disable-robustness-slices", is_flag=True, help="Measure no changed states.")
@threshold_options(DistillationThresholds)
@click.option("--env", "environment", help="What to play; default: as in the sidecars.")
@click.option(
    "--episodes",
    "--rollout-episodes",
    "--sim-rollout-episodes",
    "n_episodes",
    type=COUNT_OR_ZERO,
    help="Episodes of each network; default: 100 where an environment is known.",
)
@click.option(
    "--rollout-max-steps",
    "--sim-rollout-max-steps",
    "max_steps",
    type=COUNT,
    help="Most steps of an episode; default: as many as the environment allows.",
)
@click.option(
    "--rollout-base-seed",
    "--sim-rollout-base-seed",
    "episode_seed",
    type=SEED,
    help="Seed of the episodes; default: as --seed.",
)
@click.option(
    "--max-relative-return-drop",
    "--sim-max-relative-return-drop",
    "max_return_drop",
    type=NOT_NEGATIVE,
    help="Greatest share of its teacher's mean return that a student may lose.",
)
@click.option("--sim-rollout", is_flag=True, help="Fail where no environment is known.")
@click.option("--sim-env-factory", help="Refused; see --env.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Only cpu.")
@validator_options("reports/distillation_validation")
def validate_distillation(
    pair: str,
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
    disable_robustness_slices: bool,
    thresholds: DistillationThresholds,
    allow_unsafe_unpickle: bool,
    report_dir: Path,
    report_only: bool,
    **rest: Any,
) -> int:
    """Judge students on held-out states and by the episodes that they play.

    Exits with 1 where a student misses a threshold, unless --report-only. Teachers are found
    through the sidecars of the students, or as parent_A.pt and parent_B.pt beside them. Students
    and teachers play where the environment is known: from --env, or from their sidecars.
    """
    from engine.stages.distillation.pair_validation import (
        Evaluation,
        find_pair,
        validate_pair,
        write_validation,
    )
    from engine.stages.distillation.teachers import Sizes
    from engine.stages.validation.timing import LatencySettings

    episodes = _episodes(seed, **rest)
    evaluation = Evaluation(
        n_states=n_states,
        seed=seed,
        states_file=states_file,
        use_training_states=use_training_states,
        k_values=k_values,
        robustness=not disable_robustness_slices,
        latency=LatencySettings(latency_warmup, latency_repeats),
        thresholds=thresholds,
    )
    pairs = [
        find_pair(
            label,
            checkpoint_dir,
            rest[f"student_{label.lower()}_ckpt"],
            rest[f"parent_{label.lower()}_ckpt"],
            Sizes(n_inputs, n_actions, hidden),
            allow_unsafe_unpickle,
        )
        for label in labels(pair)
    ]
    settings = {"report_only": report_only, "allow_unsafe_unpickle": allow_unsafe_unpickle}
    reports = {
        found.label: {**validate_pair(found, evaluation, episodes), **settings} for found in pairs
    }
    for label, report in reports.items():
        for line in outcome(f"student {label}", report):
            click.echo(line)
    for path in write_validation(report_dir, reports):
        click.echo(f"wrote {path}")
    return finish(all(report["passed"] for report in reports.values()), report_only)


def _episodes(
    seed: int,
    environment: str | None,
    n_episodes: int | None,
    max_steps: int | None,
    episode_seed: int | None,
    max_return_drop: float | None,
    sim_rollout: bool,
    sim_env_factory: str | None,
    device: str,
    **_: Any,
) -> Episodes:
    """Return what is to be played, or refuse what is not done here."""
    from engine.stages.distillation.pair_validation import Episodes

    if sim_env_factory:
        raise StageError(
            f"--sim-env-factory {sim_env_factory} would run code by its name; register the "
            "environment with gymnasium and pass --env module:Name-v0"
        )
    if device != "cpu":
        raise StageError(f"--device must be cpu, not {device}: these networks are too small for it")
    return Episodes(
        environment,
        n_episodes,
        seed if episode_seed is None else episode_seed,
        max_steps,
        max_return_drop,
        required=sim_rollout,
    )
