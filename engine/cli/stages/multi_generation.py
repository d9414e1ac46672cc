"""``cultivar multi-gen-search``: the crossover search over generations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli.stages.many_values import ManyValues
from engine.cli.stages.options import (
    FILE,
    episode_options,
    size_options,
    states_options,
    threshold_options,
    training_states_option,
    unsafe_option,
)
from engine.cli.stages.search import search_options, teller, workers_of
from engine.cli.stages.value_types import COUNT, SEED, SHARE, Number
from engine.formatting import decimals_for, format_number
from engine.stages.search.space import CUSTOM, search_space
from engine.stages.validation.thresholds import RecombinationThresholds

ALPHAS, SEEDS, REGIMES = (0.5,), (0,), ("short",)
"""What a custom grid has by default: one of each."""


@click.command(cls=ManyValues)
@click.option("--num-generations", type=COUNT, default=2, show_default=True, help="Generations.")
@click.option(
    "--selection-strategy",
    type=click.Choice(["best", "best_vs_original"]),
    default="best",
    show_default=True,
    help="Next parents: the two best children, or the best one and the original parent B.",
)
@click.option("--keep-top-k", type=COUNT, help="The second parent is among so many best children.")
@click.option(
    "--score-against",
    type=click.Choice(["current", "original"]),
    default="current",
    show_default=True,
    help="Parents whose agreement selects; both scores are reported.",
)
@click.option(
    "--mutation-std",
    type=Number(min=0),
    default=0.0,
    show_default=True,
    help="Noise on promoted children, relative to the weights around it; 0 for none.",
)
@click.option(
    "--mutation-fraction",
    type=SHARE,
    default=1.0,
    show_default=True,
    help="Share of the weights that get noise.",
)
@click.option("--mutation-seed", type=SEED, help="Seed of the noise; default: --seed.")
@search_options("minimal", alphas=ALPHAS, seeds=SEEDS, regimes=REGIMES)
@size_options()
@states_options(n_states=200, seed=0)
@training_states_option()
@episode_options()
@threshold_options(RecombinationThresholds)
@unsafe_option()
@click.option(
    "--run-dir",
    "--output-dir",
    "run_dir",
    type=FILE,
    default="runs/multi_gen_search",
    show_default=True,
    help="Where everything goes; started again, a search goes on there.",
)
def multi_gen_search(run_dir: Path, quiet: bool, **options: Any) -> int:
    """Search over generations: the best children become parents."""
    from engine.stages.search.generation_settings import Generations
    from engine.stages.search.generations import multi_generation_search
    from engine.stages.search.setup import set_up

    tell = teller(quiet)
    seed = options["seed"]
    generations = Generations(
        n_generations=options.pop("num_generations"),
        selection=options.pop("selection_strategy"),
        keep_top_k=options.pop("keep_top_k"),
        score_against=options.pop("score_against"),
        seed=seed,
        mutation_std=options.pop("mutation_std"),
        mutation_fraction=options.pop("mutation_fraction"),
        mutation_seed=options.pop("mutation_seed"),
    )
    name = options.pop("search_space")
    is_custom = name == CUSTOM
    space = search_space(
        name,
        options.pop("max_runs"),
        options.pop("crossover_modes"),
        options.pop("alpha_values") or (ALPHAS if is_custom else ()),
        options.pop("crossover_seeds") or (SEEDS if is_custom else ()),
        options.pop("finetune_regimes") or (REGIMES if is_custom else ()),
    )
    workers = workers_of(options)
    search = set_up(run_dir, space, untrained_seeds=(seed, seed + 1), tell=tell, **options)
    with workers.start(tell) as (executor, stop):
        done = multi_generation_search(search, generations, run_dir, executor, stop, tell)
    returns = [row["best_return_mean"] for row in done.summaries]
    is_played = None not in returns
    click.echo(
        "gen  parents agree  best    vs original  with A  with B  "
        + ("return  child" if is_played else "child")
    )
    for row in done.summaries:
        played = format_number(row["best_return_mean"], decimals_for(returns)) if is_played else ""
        click.echo(
            f"{row['generation']:>3}  {row['parents_agree']:>13.4f}  "
            f"{row['best_primary_metric']:.4f}  {row['best_primary_metric_vs_original']:>11.4f}  "
            f"{row['best_child_vs_original_a_agreement']:.4f}  "
            f"{row['best_child_vs_original_b_agreement']:.4f}  "
            + (f"{played:>6}  " if is_played else "")
            + row["best_child_id"]
        )
    folders = ", ".join(row["run_dir"] for row in done.summaries)
    click.echo(f"wrote multi_gen_summary.json, lineage.json, {folders} to {run_dir}")
    return 0
