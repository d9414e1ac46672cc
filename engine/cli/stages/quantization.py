"""``cultivar quantize`` and ``qat``: students in int8."""

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
    training_states_option,
    unsafe_option,
)
from engine.cli.stages.value_types import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, SHARE
from engine.errors import StageError

if TYPE_CHECKING:
    from engine.stages.roles import Role

SHOW = {"show_default": True}
QINT8 = click.Choice(["qint8"])


@click.command(context_settings=SHOW)
@pair_option()
@click.option("--checkpoint-dir", type=FILE, help="Where student_A.pt and student_B.pt are.")
@click.option("--student-a-ckpt", type=FILE, help="Student A.")
@click.option("--student-b-ckpt", type=FILE, help="Student B.")
@size_options(None, None, None)
@click.option(
    "--states-file",
    type=FILE,
    help="Float32 rows, (N, inputs), as .npy, to calibrate on; default: training states.",
)
@click.option("--n-states", type=COUNT, default=1000, help="Held-out states to compare on.")
@seed_option()
@training_states_option()
@click.option(
    "--mode",
    type=click.Choice(["dynamic", "static"]),
    default="dynamic",
    help="dynamic: int8 weights; static: 8-bit activations too, in an ONNX file.",
)
@click.option("--dtype", type=QINT8, default="qint8", help="Type of the weights.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "x86", "fbgemm", "qnnpack"]),
    default="auto",
    help="Accepted, without effect.",
)
@click.option("--calibration-batches", type=COUNT, default=10, help="Batches to calibrate on.")
@click.option("--calibration-batch-size", type=COUNT, default=64, help="States in each of them.")
@click.option(
    "--refit/--no-refit",
    default=True,
    help="Fit the output layer to make up for what rounding changes.",
)
@unsafe_option()
@click.option(
    "--output-dir", type=FILE, default="checkpoints/quantized", help="Gets networks and reports."
)
@one_writer
def quantize(
    pair: str,
    checkpoint_dir: Path | None,
    student_a_ckpt: Path | None,
    student_b_ckpt: Path | None,
    n_inputs: int | None,
    n_actions: int | None,
    hidden: int | None,
    states_file: Path | None,
    n_states: int,
    use_training_states: bool,
    allow_unsafe_unpickle: bool,
    output_dir: Path,
    **settings: Any,
) -> None:
    """Turn students into int8 without training, and tell what that costs.

    Weights become int8 with one scale per row. Activations stay float32, unless --mode static. The
    output layer is refitted on states that the student was trained on, or of --states-file.
    """
    from engine.stages.distillation.teachers import Sizes
    from engine.stages.quantization.ptq import PtqConfig, quantize_role
    from engine.stages.quantization.weights import check_student_sizes

    config = PtqConfig(**settings)
    files = {"A": student_a_ckpt, "B": student_b_ckpt}
    students = [
        _student(label, checkpoint_dir, files[label], allow_unsafe_unpickle)
        for label in labels(pair)
    ]
    for student in students:
        check_student_sizes(student, Sizes(n_inputs, n_actions, hidden))
    for student in students:
        made = quantize_role(
            student, output_dir, config, n_states, states_file, use_training_states
        )
        report = made.report
        click.echo(_cost(student, report))
        click.echo(f"  {retained(report['comparison'], report['states'])}")
        if report["onnx"] is not None:
            click.echo(f"  ONNX: {retained(report['onnx']['comparison'], report['states'])}")
            click.echo(f"  wrote {report['onnx']['path']}")
        if settings["refit"] and not report["quantization"]["refit"]:
            click.echo("  output layer not refitted: no states of it are known; give --states-file")
        click.echo(f"  wrote {made.role.path}")
        report_file = output_dir / f"quantization_report_{report['pair']}.json"
        click.echo(f"  wrote {report_file}")


def _student(label: str, directory: Path | None, file: Path | None, allow_unsafe: bool) -> Role:
    from engine.stages.roles import load_role

    name = f"student_{label}"
    if file is None and directory is None:
        raise StageError(
            f"student {label} is not known; give --checkpoint-dir, or "
            f"--student-{label.lower()}-ckpt"
        )
    if file is None and directory is not None:
        file = directory / f"{name}.pt"
        if not file.is_file():
            raise StageError(
                f"{file}: expected a distilled student, but there is none; run 'cultivar distill "
                f"--output-dir {directory}' first, or choose with --pair"
            )
    assert file is not None
    return load_role(name, file, allow_unsafe)


def _cost(student: Role, report: dict[str, Any]) -> str:
    about = report["quantization"]
    return (
        f"{student.name}: {about['float_param_bytes']} -> {about['quantized_param_bytes']} bytes, "
        f"{about['linear_layers_quantized']} linear layers in int8"
    )


def retained(comparison: dict[str, Any], states: dict[str, Any]) -> str:
    """Return in words how close an int8 network is to the float one.

    Args:
        comparison: What :func:`engine.stages.quantization.weights.fidelity` returned.
        states: Record of the states.
    """
    low, high = comparison["action_agreement_ci95"]
    kind = {True: "held-out ", False: "training ", None: ""}[states["held_out"]]
    return (
        f"same action as the float network in {comparison['action_agreement']:.2%} of "
        f"{comparison['n_states']} {kind}states ({low:.2%} to {high:.2%}), mean error of Q-values "
        f"{comparison['mean_q_error']:.4g}"
    )


@click.command(context_settings=SHOW)
@pair_option("A")
@click.option("--checkpoint-dir", type=FILE, help="Where students and teachers are.")
@click.option(
    "--teacher-a-ckpt",
    "--parent-a-ckpt",
    "teacher_a",
    type=FILE,
    help="Default: as in the sidecar.",
)
@click.option("--student-a-ckpt", "student_a", type=FILE, help="Student A.")
@click.option(
    "--teacher-b-ckpt",
    "--parent-b-ckpt",
    "teacher_b",
    type=FILE,
    help="Default: as in the sidecar.",
)
@click.option("--student-b-ckpt", "student_b", type=FILE, help="Student B.")
@size_options(None, None, None)
@click.option(
    "--states-file",
    type=FILE,
    help="Float32 rows, (N, inputs), as .npy; default: what the student was trained on.",
)
@click.option(
    "--n-states",
    type=COUNT,
    help="States to train on; default: all of these, or 1000 synthetic ones.",
)
@seed_option()
@training_states_option()
@click.option("--epochs", type=COUNT, default=5, help="Passes over the states.")
@click.option(
    "--lr", "--learning-rate", "learning_rate", type=POSITIVE, default=1e-4, help="Of Adam."
)
@click.option("--batch-size", type=COUNT, default=32, help="States per step.")
@click.option(
    "--max-grad-norm", type=NOT_NEGATIVE, default=1.0, help="Where to clip; 0 for nowhere."
)
@click.option("--val-fraction", type=FRACTION, default=0.1, help="Share that picks the best epoch.")
@click.option(
    "--loss-fn",
    type=click.Choice(["mse", "kl"]),
    default="mse",
    help="mse for the teacher's values, kl for soft labels.",
)
@click.option("--temperature", type=POSITIVE, default=3.0, help="Temperature of the soft labels.")
@click.option("--alpha", type=SHARE, default=1.0, help="Share of the soft labels in the loss.")
@click.option("--dtype", type=QINT8, default="qint8", help="Type of the weights.")
@click.option("--no-convert", is_flag=True, help="Write no int8 network.")
@unsafe_option()
@click.option(
    "--output-dir", type=FILE, default="checkpoints/qat", help="Gets networks and reports."
)
@one_writer
def qat(
    pair: str,
    checkpoint_dir: Path | None,
    n_inputs: int | None,
    n_actions: int | None,
    hidden: int | None,
    states_file: Path | None,
    n_states: int | None,
    seed: int,
    use_training_states: bool,
    max_grad_norm: float,
    dtype: str,
    no_convert: bool,
    allow_unsafe_unpickle: bool,
    output_dir: Path,
    teacher_a: Path | None,
    student_a: Path | None,
    teacher_b: Path | None,
    student_b: Path | None,
    **learning: Any,
) -> None:
    """Fine-tune students through the int8 codec, and export them as int8.

    The report tells what that gains over quantizing the student as it is, and over the same
    fine-tuning without the codec.
    """
    from engine.stages.distillation.pair_validation import find_pair
    from engine.stages.distillation.teachers import Sizes
    from engine.stages.imitation.config import ImitationConfig
    from engine.stages.quantization.calibration import lesson_for
    from engine.stages.quantization.qat import train_quantization_aware

    config = ImitationConfig(seed=seed, max_grad_norm=max_grad_norm or None, **learning)
    files = {"A": (student_a, teacher_a), "B": (student_b, teacher_b)}
    sizes = Sizes(n_inputs, n_actions, hidden)
    pairs = [
        find_pair(label, checkpoint_dir, *files[label], sizes, allow_unsafe_unpickle)
        for label in labels(pair)
    ]
    for found in pairs:
        lesson = lesson_for(found.student, n_states, seed, states_file, n_states or 1000)
        assert lesson is not None
        report = train_quantization_aware(
            found.student,
            found.teacher,
            output_dir,
            config,
            lesson,
            not no_convert,
            use_training_states,
        )
        click.echo(_learned(report, n_states))
        report_file = output_dir / f"qat_report_{report['pair']}.json"
        for path in (report["float_qat_checkpoint"], report["int8_checkpoint"], report_file):
            if path is not None:
                click.echo(f"  wrote {path}")


def _learned(report: dict[str, Any], n_states: int | None) -> str:
    """Return what became of a student, in a table of agreements with the teacher.

    Args:
        report: What :func:`train_quantization_aware` returned.
        n_states: How many states to train on were asked for.
    """
    states = report["training_states"]
    asked = f" of {n_states} asked for" if n_states and states["n_states"] < n_states else ""
    shown = {
        "student_ptq_int8": "student, quantized",
        "qat_int8": "trained through the codec, quantized",
        "control_ptq_int8": "trained without the codec, quantized",
    }
    lines = [
        f"student {report['pair']}: {states['n_states']} states to train{asked} "
        f"({states['source']}); agreement with its teacher"
    ]
    for name, text in shown.items():
        metrics = report["comparison_with_teacher"][name]
        low, high = metrics["action_agreement_ci95"]
        lines.append(f"  {text:<36} {metrics['action_agreement']:.2%} ({low:.2%} to {high:.2%})")
    kept = retained(report["comparison_float_vs_qat_int8"], report["states"])
    return "\n".join([*lines, f"  {kept}"])
