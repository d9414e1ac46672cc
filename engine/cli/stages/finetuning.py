"""``cultivar finetune``: cross two parents and fine-tune the child."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.stages.one_writer import one_writer
from engine.cli.stages.options import FILE, Decorator, size_options, unsafe_option
from engine.cli.stages.value_types import (
    COUNT,
    COUNT_OR_ZERO,
    DECAY,
    FRACTION,
    INSIDE,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
)
from engine.errors import StageError

if TYPE_CHECKING:
    from engine.stages.recombination.finetuning_config import FineTuningConfig
    from engine.stages.recombination.finetuning_run import FineTunedChild


def _setting(*names: str, type: Any, help: str, default: str) -> Decorator:
    """Return an option for a setting that a YAML file may hold, too."""
    return click.option(*names, type=type, help=f"{help}  [default: {default}]")


@click.command()
@size_options(None, None, None)
@click.option("--parent-a-ckpt", type=FILE, help="Parent A; default: a random one, written.")
@click.option("--parent-b-ckpt", type=FILE, help="Parent B; default: a random one, written.")
@click.option(
    "--crossover-mode",
    type=click.Choice(["random", "layer", "weighted"]),
    default="weighted",
    show_default=True,
    help="How the parents are crossed.",
)
@click.option(
    "--crossover-alpha", type=SHARE, default=0.5, show_default=True, help="Share of parent A."
)
@click.option(
    "--crossover-seed", type=SEED, default=42, show_default=True, help="Of random crossover."
)
@click.option(
    "--align",
    type=click.Choice(["none", "weights", "activations", "auto"]),
    default="none",
    show_default=True,
    help="Put the hidden units of parent B into the order of parent A's first.",
)
@click.option(
    "--reference",
    type=click.Choice(["parent_a", "both"]),
    default="parent_a",
    show_default=True,
    help="Whom the child imitates.",
)
@click.option("--reference-a-ckpt", type=FILE, help="Imitate this network in place of parent A.")
@click.option("--reference-b-ckpt", type=FILE, help="Imitate this network in place of parent B.")
@click.option("--teacher-weight-a", type=SHARE, help="Share of the first of both.  [default: 0.5]")
@click.option("--n-states", type=COUNT, help="States to train on.  [default: see above]")
@click.option("--states-file", type=FILE, help="Float32 rows, (N, inputs), as .npy.")
@click.option("--env", "environment", help="What the child plays; default: as in the sidecars.")
@click.option(
    "--config-yaml",
    type=FILE,
    help="Settings for those below, in its section crossover_child_finetune.",
)
@_setting("--lr", "--learning-rate", "learning_rate", type=POSITIVE, help="Rate.", default="0.001")
@_setting("--epochs", type=COUNT, help="Passes over the states.", default="5")
@_setting("--batch-size", type=COUNT, help="States per step.", default="32")
@_setting("--max-grad-norm", type=NOT_NEGATIVE, help="Where to clip; 0: nowhere.", default="1")
@_setting("--val-fraction", type=FRACTION, help="Share that picks the best epoch.", default="0.1")
@_setting("--loss-fn", type=click.Choice(["kl", "mse"]), help="What is minimized.", default="kl")
@_setting("--temperature", type=POSITIVE, help="Temperature of the soft labels.", default="3")
@_setting("--temp-decay", type=DECAY, help="Factor on it after each epoch.", default="1")
@_setting("--alpha", type=SHARE, help="Share of the soft labels in the loss.", default="1")
@_setting(
    "--lr-patience",
    "lr_schedule_patience",
    type=COUNT_OR_ZERO,
    help="Epochs without a better one before the rate falls.",
    default="0, never",
)
@_setting("--lr-factor", "lr_schedule_factor", type=INSIDE, help="By how much.", default="0.5")
@_setting(
    "--early-stopping-patience",
    type=COUNT_OR_ZERO,
    help="Epochs without a better one before training ends.",
    default="0, never",
)
@_setting(
    "--optimizer",
    type=click.Choice(["adam", "adamw", "sgd", "rmsprop"]),
    help="How it is minimized.",
    default="adam",
)
@_setting(
    "--quantization-applied",
    type=click.Choice(["none", "ptq_dynamic", "ptq_static", "qat_float"]),
    help="All but none train through the int8 codec; ptq_* also write an int8 child.",
    default="none",
)
@_setting(
    "--calibration",
    type=click.Choice(["none", "value", "output"]),
    help="What is refitted to the scale of the reference after training.",
    default="output",
)
@click.option(
    "--normalise-q/--no-normalise-q",
    default=None,
    help="Imitate advantages in units of their gaps.",
)
@_setting("--seed", type=SEED, help="Seed of training, and of synthetic states.", default="42")
@unsafe_option()
@click.option(
    "--output-dir",
    type=FILE,
    default="checkpoints/finetuned",
    show_default=True,
    help="Gets the child before and after, its states, and random parents.",
)
@one_writer
def finetune(
    n_inputs: int | None,
    n_actions: int | None,
    hidden: int | None,
    parent_a_ckpt: Path | None,
    parent_b_ckpt: Path | None,
    crossover_mode: str,
    crossover_alpha: float,
    crossover_seed: int,
    align: Any,
    reference: str,
    reference_a_ckpt: Path | None,
    reference_b_ckpt: Path | None,
    teacher_weight_a: float | None,
    n_states: int | None,
    states_file: Path | None,
    environment: str | None,
    config_yaml: Path | None,
    allow_unsafe_unpickle: bool,
    output_dir: Path,
    **settings: Any,
) -> None:
    """Cross two parents and fine-tune their child.

    The child imitates parent A, or with --reference both the two of them; the epoch that is kept
    may be the start. States come from --states-file; else they are what the parents were trained
    on; else, where an environment is known, what they see when they play (5000 states); else they
    are normally distributed (1000 states).

    Flags win over --config-yaml, and what neither names has its default.
    """
    from engine.stages.distillation.teacher_states import environment_of_teachers
    from engine.stages.distillation.teachers import Sizes, TeacherChoice, teachers_in
    from engine.stages.recombination.finetuning_run import Crossover, Family, finetune_child
    from engine.stages.recombination.finetuning_states import states_for_child
    from engine.stages.roles import load_role

    given = {"A": parent_a_ckpt, "B": parent_b_ckpt}
    files = {label: path for label, path in given.items() if path is not None}
    if len(files) == 1:
        raise StageError("give both --parent-a-ckpt and --parent-b-ckpt, or neither")
    if reference != "both" and (reference_b_ckpt, teacher_weight_a) != (None, None):
        raise StageError("--reference-b-ckpt and --teacher-weight-a need --reference both")
    config = _config(config_yaml, settings)
    choice = TeacherChoice(
        files=files,
        sizes=Sizes(n_inputs, n_actions, hidden),
        seed=config.resolved_seed,
        environment=environment,
        allow_unsafe=allow_unsafe_unpickle,
    )
    teachers = teachers_in(output_dir, choice)
    parents = (teachers["A"], teachers["B"])
    imitated = [
        parent if path is None else load_role(f"reference_{label}", path, allow_unsafe_unpickle)
        for label, path, parent in zip(
            "AB", (reference_a_ckpt, reference_b_ckpt), parents, strict=True
        )
    ]
    shares: tuple[float, ...] = (1.0,)
    if reference == "both":
        weight = 0.5 if teacher_weight_a is None else teacher_weight_a
        shares = (weight, 1 - weight)
    family = Family(
        *parents,
        references=tuple(imitated[: len(shares)]),
        shares=shares,
        environment=environment_of_teachers(parents, environment),
    )
    states = states_for_child(
        parents, family.environment, n_states, config.resolved_seed, states_file, click.echo
    )
    crossover = Crossover(crossover_mode, crossover_alpha, crossover_seed, align)
    done = finetune_child(output_dir, family, crossover, config, states, tell=click.echo)
    for line in _learned(done):
        click.echo(line)


def _config(path: Path | None, flags: dict[str, Any]) -> FineTuningConfig:
    """Return the settings of a file, or the defaults, with those that a flag names."""
    from engine.stages.recombination.finetuning_config import (
        FineTuningConfig,
        read_finetuning_config,
    )

    config = FineTuningConfig() if path is None else read_finetuning_config(path)
    named = {name: value for name, value in flags.items() if value is not None}
    if named.get("max_grad_norm") == 0:
        named["max_grad_norm"] = None
    return replace(config, **named)


def _learned(done: FineTunedChild) -> Iterator[str]:
    """Yield what became of the child, line by line."""
    from engine.stages.recombination.finetuning import REFERENCES

    metrics, outcome = done.metrics, done.tuned.outcome
    epoch = "the start" if outcome.best_epoch < 0 else f"epoch {outcome.best_epoch + 1}"
    stopped = ", stopped early" if metrics["early_stopped"] else ""
    yield (
        f"validation: loss {metrics['initial_val_loss']:.4f} -> {metrics['best_val_loss']:.4f} "
        f"({epoch} of {metrics['epochs_run']}{stopped}), "
        f"agreement {metrics['initial_action_agreement']:.1%} -> "
        f"{metrics['final_action_agreement']:.1%}, "
        f"similarity {metrics['initial_prob_similarity']:.3f} -> "
        f"{metrics['final_prob_similarity']:.3f}"
    )
    heldout = metrics["heldout"]
    if heldout["states"] is None:
        yield f"held-out states: {heldout['reason']}"
    for name in REFERENCES:
        if name in heldout:
            before, after = heldout[name]["before"], heldout[name]["after"]
            low, high = after["action_agreement_ci95"]
            yield (
                f"held-out states, against {name}: agreement {before['action_agreement']:.1%} -> "
                f"{after['action_agreement']:.1%} ({low:.1%} to {high:.1%}), as int8 "
                f"{heldout[name]['int8']['action_agreement']:.1%}"
            )
    for path in done.files.values():
        yield f"wrote {path}"
