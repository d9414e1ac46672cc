"""``cultivar benchmark-crossover``: crossing two networks into one."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.stages.options import FILE, size_options
from engine.cli.stages.value_types import COUNT, SEED, SHARE

if TYPE_CHECKING:
    from engine.stages.recombination.crossover_benchmark import CrossoverFigures


@click.command()
@size_options()
@click.option(
    "--n-states", type=COUNT, default=256, show_default=True, help="States to compare on."
)
@click.option("--n-repeats", type=COUNT, default=20, show_default=True, help="Crossings to time.")
@click.option("--seed-a", type=SEED, default=0, show_default=True, help="Seed of parent A.")
@click.option("--seed-b", type=SEED, default=1, show_default=True, help="Seed of parent B.")
@click.option("--state-seed", type=SEED, default=42, show_default=True, help="Seed of the states.")
@click.option(
    "--alpha",
    type=SHARE,
    default=0.5,
    show_default=True,
    help="Share of parent A, in random and weighted crossover.",
)
@click.option("--output-csv", type=FILE, help="Write the table to this file too.")
def benchmark_crossover(
    n_inputs: int,
    n_actions: int,
    hidden: int,
    n_states: int,
    n_repeats: int,
    seed_a: int,
    seed_b: int,
    state_seed: int,
    alpha: float,
    output_csv: Path | None,
) -> None:
    """Time the crossover strategies and compare their children with parent A.

    Both parents are untrained networks. Action agreement and errors of Q-values are those of the
    child against parent A.
    """
    from engine.stages.recombination.crossover_benchmark import benchmark_crossover as measure
    from engine.stages.reports.files import write_text

    figures = measure(
        n_inputs=n_inputs,
        n_actions=n_actions,
        hidden=hidden,
        n_states=n_states,
        n_repeats=n_repeats,
        seed_a=seed_a,
        seed_b=seed_b,
        state_seed=state_seed,
        alpha=alpha,
    )
    click.echo("strategy  alpha  time (ms)  mean Q error  max Q error  agreement with A")
    for row in figures:
        click.echo(
            f"{row.strategy:<8}  {'-' if row.alpha is None else f'{row.alpha:g}':>5}"
            f"  {row.mean_time_ms:>9.3f}  {row.mean_q_error:>12.4f}  {row.max_q_error:>11.4f}"
            f"  {row.action_agreement:>16.4f}"
        )
    if _are_equal(figures, "random", "layer"):
        click.echo(
            "random and layer are one child here: the documented seed draws just the matrices that "
            "layer takes, and all biases and norms of untrained networks are equal"
        )
    if output_csv is not None:
        write_text(output_csv, _to_csv(figures))
        click.echo(f"wrote {output_csv}")


def _are_equal(figures: list[CrossoverFigures], one: str, other: str) -> bool:
    """Tell whether two strategies gave the same figures, to the last digit; times aside."""
    rows = {
        str(row.strategy): (row.mean_q_error, row.max_q_error, row.action_agreement)
        for row in figures
    }
    return rows[one] == rows[other]


def _to_csv(figures: list[CrossoverFigures]) -> str:
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(figures[0])]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in figures)
    return text.getvalue()
