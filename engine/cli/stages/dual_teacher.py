"""``cultivar dual-teacher-cartpole`` and ``cultivar cartpole-recombination``: whole pipelines."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.stages.one_writer import one_writer
from engine.cli.stages.options import FILE, Decorator, F, finish, threshold_options, unsafe_option
from engine.cli.stages.outcome import returns_lines
from engine.cli.stages.parent_options import asked_training, parent_options
from engine.cli.stages.value_types import COUNT, SEED, SHARE, Number
from engine.cli.stages.wrapping import say
from engine.errors import RunInterruptedError
from engine.stages.cartpole.limits import ChildLimits, StudentLimits
from engine.stages.cartpole.parent_settings import ParentSettings

if TYPE_CHECKING:
    from engine.stages.cartpole.parent_pair import PairChoice
    from engine.stages.recombination.finetuning_run import Crossover

SHOW = {"show_default": True}
POSITIVE = Number(min=0, min_open=True)
FRACTION = Number(min=0, max=1, max_open=True)
STATES = click.IntRange(min=2)


def _common_options(n_states: int, finetune_lr: float, directory: str) -> Decorator:
    """Add what both pipelines have, but for the training of parents and the limits."""
    options = [
        click.option("--parent-a-ckpt", type=FILE, help="Parent A, instead of one trained here."),
        click.option("--parent-b-ckpt", type=FILE, help="Parent B, likewise."),
        click.option("--force-train", is_flag=True, help="Train again parents that are there."),
        unsafe_option(),
        click.option("--n-states", type=STATES, default=n_states, help="States to train on."),
        click.option("--states-seed", type=SEED, default=42, help="Chooses them."),
        click.option("--states-file", type=FILE, help="Float32 rows, (N, 4), as .npy, instead."),
        click.option(
            "--crossover-mode",
            type=click.Choice(["random", "layer", "weighted"]),
            default="weighted",
            help="How parents are crossed.",
        ),
        click.option("--crossover-alpha", type=SHARE, default=0.5, help="Share of parent A."),
        click.option("--crossover-seed", type=SEED, default=42, help="Of random crossover."),
        click.option(
            "--align",
            type=click.Choice(["none", "weights", "activations", "auto"]),
            default="none",
            help="Put the hidden units of parent B into the order of parent A's first.",
        ),
        click.option("--finetune-epochs", type=COUNT, default=10, help="Passes over the states."),
        click.option("--finetune-lr", type=POSITIVE, default=finetune_lr, help="Of Adam."),
        click.option("--finetune-batch", type=COUNT, default=64, help="States per step."),
        click.option("--finetune-seed", type=SEED, default=0, help="Of split and minibatches."),
        click.option(
            "--episodes", "n_episodes", type=COUNT, default=100, help="Held-out ones that all play."
        ),
        click.option("--report-only", is_flag=True, help="Exit with 0 even if a limit is missed."),
        click.option("--output-dir", type=FILE, default=directory, help="Gets all files."),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.command(context_settings=SHOW)
@parent_options("train-")
@_common_options(2000, 5e-4, "checkpoints/dual_teacher_cartpole")
@click.option("--distill-epochs", type=COUNT, default=15, help="Passes over the states.")
@click.option("--distill-temperature", type=POSITIVE, default=3.0, help="Of the soft labels.")
@click.option("--distill-alpha", type=SHARE, default=1.0, help="Share of the soft labels.")
@click.option("--distill-lr", type=POSITIVE, default=1e-3, help="Of Adam.")
@click.option("--distill-batch", type=COUNT, default=64, help="States per step.")
@click.option("--distill-seed", type=SEED, default=42, help="Of students, split, minibatches.")
@click.option("--finetune-temperature", type=POSITIVE, default=3.0, help="Of the soft labels.")
@click.option("--finetune-teacher-weight-a", type=SHARE, default=0.5, help="Share of parent A.")
@click.option("--finetune-val-fraction", type=FRACTION, default=0.1, help="Picks the best epoch.")
@click.option(
    "--finetune-variants",
    type=click.IntRange(1, 6),
    default=6,
    help="Fine-tunings to try; what plays best is kept. 1: only the one documented.",
)
@click.option("--selection-episodes", type=COUNT, default=64, help="Episodes that tell the best.")
@click.option(
    "--min-distill-agreement",
    type=SHARE,
    default=StudentLimits.min_action_agreement,
    help="Least share of states in which a student does what its teacher does.",
)
@click.option(
    "--max-distill-kl",
    type=Number(min=0),
    default=StudentLimits.max_distill_kl,
    help="Greatest T^2 KL divergence of a student at the temperature of the distillation.",
)
@click.option(
    "--min-return-share",
    type=SHARE,
    default=0.99,
    help="Least mean return of the child, as a share of the better parent's.",
)
@threshold_options(ChildLimits)
@one_writer
def dual_teacher_cartpole(parents: ParentSettings, thresholds: ChildLimits, **given: Any) -> int:
    """Run the whole pipeline on CartPole with two teachers.

    Trains two parents unless they are given, distills a student of each, quantizes the students,
    crosses them, fine-tunes the child towards both parents, and judges every network on held-out
    states and in held-out episodes. Parents that are given keep their own replay states.

    Exits with 1 if a student or the child misses a limit, that on its return among them.
    """
    from engine.stages.cartpole.dual_teacher import DualTeacherSettings
    from engine.stages.cartpole.report import run_dual_teacher
    from engine.stages.imitation.config import ImitationConfig
    from engine.stages.recombination.finetuning_config import FineTuningConfig

    distillation = ImitationConfig(
        temperature=given["distill_temperature"],
        alpha=given["distill_alpha"],
        learning_rate=given["distill_lr"],
        epochs=given["distill_epochs"],
        batch_size=given["distill_batch"],
        seed=given["distill_seed"],
    )
    finetuning = FineTuningConfig(
        temperature=given["finetune_temperature"],
        learning_rate=given["finetune_lr"],
        epochs=given["finetune_epochs"],
        batch_size=given["finetune_batch"],
        val_fraction=given["finetune_val_fraction"],
        seed=given["finetune_seed"],
        max_grad_norm=None,
    )
    settings = DualTeacherSettings(
        parents=_pair(parents, given),
        n_states=given["n_states"],
        states_seed=given["states_seed"],
        states_file=given["states_file"],
        distillation=distillation,
        crossover=_crossover(given),
        finetuning=finetuning,
        weight_a=given["finetune_teacher_weight_a"],
        n_variants=given["finetune_variants"],
        selection_episodes=given["selection_episodes"],
        student_limits=StudentLimits(given["min_distill_agreement"], given["max_distill_kl"]),
        child_limits=thresholds,
        min_return_share=given["min_return_share"],
        episodes=given["n_episodes"],
        report_only=given["report_only"],
        flags=_flags(),
    )
    with _reusable_when_stopped(given["force_train"]):
        run = run_dual_teacher(given["output_dir"], settings, say)
    _tell_summary(run.report, run.report["checks_passed"], run.path)
    return finish(run.passed)


@click.command(context_settings=SHOW)
@parent_options("train-")
@_common_options(20_000, 1e-3, "checkpoints/cartpole")
@click.option("--include-parent-baseline", is_flag=True, help="Compare the parents, too.")
@threshold_options(ChildLimits)
@one_writer
def cartpole_recombination(parents: ParentSettings, thresholds: ChildLimits, **given: Any) -> int:
    """Cross two CartPole parents and fine-tune the child towards A.

    The quick demo: nothing is distilled. Trains the parents unless they are given or in the folder
    already, and judges the child on held-out states and in held-out episodes.

    Exits with 1 if the child misses a limit.
    """
    from engine.stages.cartpole.recombination import (
        RecombinationSettings,
        run_cartpole_recombination,
    )
    from engine.stages.recombination.finetuning_config import FineTuningConfig

    settings = RecombinationSettings(
        parents=_pair(parents, given),
        n_states=given["n_states"],
        states_seed=given["states_seed"],
        states_file=given["states_file"],
        crossover=_crossover(given),
        finetuning=FineTuningConfig(
            learning_rate=given["finetune_lr"],
            epochs=given["finetune_epochs"],
            batch_size=given["finetune_batch"],
            seed=given["finetune_seed"],
        ),
        limits=thresholds,
        include_parent_baseline=given["include_parent_baseline"],
        episodes=given["n_episodes"],
        flags=_flags(),
    )
    with _reusable_when_stopped(given["force_train"]):
        report = run_cartpole_recombination(given["output_dir"], settings, say)
    _tell_summary(report, report["passed"], given["output_dir"] / "recombination_validation.json")
    return finish(report["passed"], given["report_only"])


@contextlib.contextmanager
def _reusable_when_stopped(is_forced: bool) -> Iterator[None]:
    """Tell who stops a run what to do next."""
    try:
        yield
    except KeyboardInterrupt:
        again = "start the same command again" + (" without --force-train" if is_forced else "")
        raise RunInterruptedError(
            f"stopped; {again}: parents that are finished are reused"
        ) from None


def _pair(training: ParentSettings, given: Mapping[str, Any]) -> PairChoice:
    from engine.stages.cartpole.parent_pair import PairChoice

    files = {"A": given["parent_a_ckpt"], "B": given["parent_b_ckpt"]}
    return PairChoice(
        files={label: path for label, path in files.items() if path is not None},
        training=dataclasses.replace(training, eval_episodes=given["n_episodes"]),
        asked=asked_training(),
        force_train=given["force_train"],
        allow_unsafe=given["allow_unsafe_unpickle"],
    )


def _crossover(given: Mapping[str, Any]) -> Crossover:
    from engine.stages.recombination.finetuning_run import Crossover

    return Crossover(
        given["crossover_mode"], given["crossover_alpha"], given["crossover_seed"], given["align"]
    )


def _flags() -> dict[str, Any]:
    """Return every option of the running command by the name of its flag, and its value."""
    context = click.get_current_context()
    return {
        parameter.opts[0].lstrip("-").replace("-", "_"): context.params[parameter.name]
        for parameter in context.command.params
        if parameter.name in context.params
    }


def _tell_summary(report: Mapping[str, Any], is_kept: bool, path: Path) -> None:
    """Tell the returns of all networks, the verdict, and where the report is."""
    for line in returns_lines(report["returns"]):
        click.echo(line)
    if "crossing" in report:
        say(report["crossing"])
    if not is_kept:
        say(f"did not pass: {report['reason']}")
    else:
        say("every limit is kept, but see the warnings" if report["warnings"] else "passed")
    for warning in report["warnings"]:
        say(f"warning: {warning}")
    say(f"report: {path}")
    click.echo(f"CPU: {report['timing']['cpu_s']:.1f} s")
