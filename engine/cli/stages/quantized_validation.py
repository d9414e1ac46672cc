"""``cultivar validate-quantized``: what students have kept in int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.stages.many_values import ManyValues
from engine.cli.stages.options import (
    FILE,
    finish,
    labels,
    pair_option,
    threshold_options,
    validator_options,
)
from engine.cli.stages.outcome import outcome
from engine.cli.stages.value_types import COUNT, COUNT_OR_ZERO
from engine.stages.validation.thresholds import QuantizationThresholds

if TYPE_CHECKING:
    from engine.stages.quantization.pair_validation import Places

SHOW = {"show_default": True}


@click.command(cls=ManyValues, context_settings=SHOW)
@pair_option()
@click.option("--float-dir", type=FILE, help="Where student_A.pt is; default: as in the sidecars.")
@click.option("--float-a-ckpt", type=FILE, help="Float student A.")
@click.option("--float-b-ckpt", type=FILE, help="Float student B.")
@click.option(
    "--quant-dir", "--checkpoint-dir", "quant_dir", type=FILE, help="Where student_A_int8.pt is."
)
@click.option("--quant-a-ckpt", type=FILE, help="Quantized student A.")
@click.option("--quant-b-ckpt", type=FILE, help="Quantized student B.")
@click.option("--teacher-dir", type=FILE, help="Where parent_A.pt is; default: as in the sidecars.")
@click.option("--teacher-a-ckpt", type=FILE, help="Teacher A.")
@click.option("--teacher-b-ckpt", type=FILE, help="Teacher B.")
@click.option(
    "--fidelity-batch-size",
    type=COUNT,
    default=256,
    help="Accepted, without effect: actions do not depend on the batch.",
)
@click.option(
    "--top-k", type=COUNT_OR_ZERO, multiple=True, default=(3,), help="Of the agreements; 0: none."
)
@click.option("--throughput-batch-size", type=COUNT_OR_ZERO, default=0, help="0: not measured.")
@click.option("--throughput-warmup-batches", type=COUNT_OR_ZERO, default=2, help="Untimed ones.")
@click.option("--throughput-timed-batches", type=COUNT, default=10, help="Timed ones.")
@click.option("--no-memory-metrics", is_flag=True, help="Leave out the memory of the process.")
@threshold_options(QuantizationThresholds)
@click.option("--env", "environment", help="What to play; default: as in the sidecars.")
@click.option("--episodes", type=COUNT_OR_ZERO, default=100, help="That each plays; 0: none.")
@validator_options("reports/quantization_validation")
def validate_quantized(
    pair: str,
    n_inputs: int | None,
    n_actions: int | None,
    hidden: int | None,
    latency_warmup: int,
    latency_repeats: int,
    fidelity_batch_size: int,
    top_k: tuple[int, ...],
    throughput_batch_size: int,
    throughput_warmup_batches: int,
    throughput_timed_batches: int,
    no_memory_metrics: bool,
    allow_unsafe_unpickle: bool,
    report_dir: Path,
    report_only: bool,
    n_states: int,
    seed: int,
    states_file: Path | None,
    use_training_states: bool,
    thresholds: QuantizationThresholds,
    environment: str | None,
    episodes: int,
    **places: Path | None,
) -> int:
    """Judge quantized students against their float originals.

    Exits with 1 where one misses a threshold, unless --report-only. Floats and teachers are found
    through the sidecars. --allow-unsafe-unpickle is for int8 files of AgentFarm alone; those of
    cultivar never need it.
    """
    from engine.stages.distillation.teachers import Sizes
    from engine.stages.quantization.pair_validation import (
        Judgement,
        find_quantized_pair,
        validate_pair,
        write_validation,
    )
    from engine.stages.validation.timing import LatencySettings, ThroughputSettings

    judgement = Judgement(
        n_states=n_states,
        seed=seed,
        states_file=states_file,
        use_training_states=use_training_states,
        k_values=tuple(k for k in top_k if k),
        latency=LatencySettings(latency_warmup, latency_repeats),
        throughput=ThroughputSettings(
            throughput_batch_size, throughput_warmup_batches, throughput_timed_batches
        ),
        track_memory=not no_memory_metrics,
        thresholds=thresholds,
        environment=environment,
        episodes=episodes,
    )
    sizes = Sizes(n_inputs, n_actions, hidden)
    pairs = [
        find_quantized_pair(label, _places(label, places), sizes, allow_unsafe_unpickle)
        for label in labels(pair)
    ]
    settings = {"report_only": report_only, "allow_unsafe_unpickle": allow_unsafe_unpickle}
    reports = {found.label: {**validate_pair(found, judgement), **settings} for found in pairs}
    for label, report in reports.items():
        for line in outcome(f"quantized student {label}", report):
            click.echo(line)
    for path in write_validation(report_dir, reports):
        click.echo(f"wrote {path}")
    return finish(all(report["passed"] for report in reports.values()), report_only)


def _places(label: str, given: dict[str, Path | None]) -> Places:
    from engine.stages.quantization.pair_validation import Places

    flag = label.lower()
    return Places(
        quantized_file=given[f"quant_{flag}_ckpt"],
        quantized_dir=given["quant_dir"],
        float_file=given[f"float_{flag}_ckpt"],
        float_dir=given["float_dir"],
        teacher_file=given[f"teacher_{flag}_ckpt"],
        teacher_dir=given["teacher_dir"],
    )
