"""``cultivar distill`` and ``cultivar compare-distillation-modes``: students of teachers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.stages.one_writer import one_writer
from engine.cli.stages.options import (
    FILE,
    labels,
    pair_option,
    seed_option,
    size_options,
    unsafe_option,
)
from engine.cli.stages.value_types import (
    COUNT,
    DECAY,
    FRACTION,
    INSIDE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
)

if TYPE_CHECKING:
    from engine.stages.distillation.students import Student

SHOW = {"show_default": True}


@click.command(context_settings=SHOW)
@pair_option()
@size_options(None, None, None)
@click.option("--parent-a-ckpt", type=FILE, help="Teacher A; default: a random one, written.")
@click.option("--parent-b-ckpt", type=FILE, help="Teacher B; default: a random one, written.")
@click.option("--n-states", type=COUNT, help="States to train on; default: see above.")
@click.option("--states-file", type=FILE, help="Float32 rows, (N, inputs), as .npy.")
@click.option(
    "--heldout-fraction",
    type=INSIDE,
    default=0.1,
    help="Share of a file, or of played states, put aside; of random states as many as --n-states.",
)
@click.option("--env", "environment", help="What the teachers play; default: as in their sidecars.")
@click.option("--temperature", type=POSITIVE, default=3.0, help="Temperature of the soft labels.")
@click.option("--temp-decay", type=DECAY, default=1.0, help="Factor on it after each epoch.")
@click.option("--alpha", type=SHARE, default=1.0, help="Share of the soft labels in the loss.")
@click.option("--epochs", type=COUNT, default=10, help="Passes over the states.")
@click.option(
    "--lr", "--learning-rate", "learning_rate", type=POSITIVE, default=1e-3, help="Of Adam."
)
@click.option("--batch-size", type=COUNT, default=32, help="States per step.")
@click.option(
    "--max-grad-norm", type=NOT_NEGATIVE, default=1.0, help="Where to clip; 0 for nowhere."
)
@click.option("--val-fraction", type=FRACTION, default=0.1, help="Share that picks the best epoch.")
@click.option(
    "--loss-fn",
    type=click.Choice(["kl", "mse"]),
    default="kl",
    help="kl for soft labels, mse for the values themselves.",
)
@click.option("--normalise-q/--no-normalise-q", help="Imitate advantages in units of their gaps.")
@click.option(
    "--calibration",
    type=click.Choice(["none", "value", "output"]),
    default="output",
    help="What is refitted to the teacher's scale after training.",
)
@seed_option()
@unsafe_option()
@click.option(
    "--output-dir",
    type=FILE,
    default="checkpoints/distillation",
    help="Gets the students, their states, and random teachers.",
)
@one_writer
def distill(
    pair: str,
    n_inputs: int | None,
    n_actions: int | None,
    hidden: int | None,
    parent_a_ckpt: Path | None,
    parent_b_ckpt: Path | None,
    n_states: int | None,
    states_file: Path | None,
    heldout_fraction: float,
    environment: str | None,
    max_grad_norm: float,
    seed: int,
    allow_unsafe_unpickle: bool,
    output_dir: Path,
    **learning: Any,
) -> None:
    """Train a student of half the width to imitate each teacher.

    Teachers that no file is given for are random networks of 8 inputs, 4 actions and 64 hidden
    units, unless --input-dim, --output-dim and --hidden-size say otherwise. They are written as
    parent_A.pt and parent_B.pt, where later commands find them.

    States come from --states-file; else, where the environment is known, from what the teachers
    saw while they were trained, or from episodes that they play now (5000 states); else they are
    normally distributed (1000 states).
    """
    from engine.stages.distillation.students import run_distillation
    from engine.stages.distillation.teachers import Sizes, TeacherChoice
    from engine.stages.imitation.config import ImitationConfig

    given = {"A": parent_a_ckpt, "B": parent_b_ckpt}
    choice = TeacherChoice(
        labels=labels(pair),
        files={label: path for label, path in given.items() if path is not None},
        sizes=Sizes(n_inputs, n_actions, hidden),
        seed=seed,
        environment=environment,
        allow_unsafe=allow_unsafe_unpickle,
    )
    config = ImitationConfig(seed=seed, max_grad_norm=max_grad_norm or None, **learning)
    students = run_distillation(
        output_dir, choice, config, n_states, states_file, heldout_fraction, click.echo
    )
    for student in students.values():
        click.echo(_learned(student))


def _learned(student: Student) -> str:
    """Return what became of a student, in three lines."""
    outcome, heldout = student.outcome, student.heldout
    teacher, small = student.teacher.network, student.role.network
    low, high = heldout["action_agreement_ci95"]
    best = outcome.looks[outcome.best_epoch + 1]
    epoch = "the start" if outcome.best_epoch < 0 else f"epoch {outcome.best_epoch + 1}"
    return (
        f"{student.teacher.name} -> {student.role.name}: {teacher.n_parameters} -> "
        f"{small.n_parameters} parameters\n"
        f"  validation loss {outcome.looks[0].loss:.4f} -> {outcome.best_loss:.4f} ({epoch} of "
        f"{len(outcome.looks) - 1}), agreement {best.agreement:.1%}"
        f", on held-out states {heldout['action_agreement']:.1%} ({low:.1%} to {high:.1%})\n"
        f"  wrote {student.role.path}"
    )


@click.command(context_settings=SHOW)
@seed_option()
@size_options()
@click.option("--n-states", type=COUNT, default=5000, help="States to train and validate on.")
@click.option("--temperature", type=POSITIVE, default=3.0, help="Temperature of the soft labels.")
@click.option("--epochs", type=COUNT, default=25, help="Passes over the states.")
@click.option("--batch-size", type=COUNT, default=64, help="States per step.")
@click.option("--lr", "--learning-rate", "lr", type=POSITIVE, default=1e-3, help="Of Adam.")
@click.option("--val-fraction", type=FRACTION, default=0.1, help="Share that picks the best epoch.")
@click.option("--json-out", type=FILE, help="Write the figures to this file too.")
def compare_distillation_modes(
    seed: int,
    n_inputs: int,
    n_actions: int,
    hidden: int,
    json_out: Path | None,
    **settings: Any,
) -> None:
    """Distill one teacher with hard, blended and soft labels and compare.

    Agreement and probability similarity are those of the last epoch on the validation states, as
    documented; the held-out agreement is that of the kept network on 20,000 other states.
    """
    from engine.stages.distillation.modes import ComparisonSettings, compare_modes
    from engine.stages.reports.files import write_json

    report = compare_modes(ComparisonSettings(n_inputs, n_actions, hidden, **settings), seed)
    click.echo("mode       alpha  agree%  prob_sim  best_val  held-out agree%")
    for run in report["runs"]:
        low, high = run["heldout_action_agreement_ci95"]
        click.echo(
            f"{run['mode']:<9}  {run['alpha']:>5.1f}  {run['final_action_agreement']:>6.2%}"
            f"  {run['final_mean_prob_similarity']:>8.4f}  {run['best_val_loss']:>8.4f}"
            f"  {run['heldout_action_agreement']:.2%} ({low:.2%} to {high:.2%})"
        )
    if json_out is not None:
        write_json(json_out, report)
        click.echo(f"wrote {json_out}")
