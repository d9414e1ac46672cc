"""``cultivar crossover-search``: a grid of children of two parents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from engine.cli.stages.many_values import ManyValues
from engine.cli.stages.options import (
    FILE,
    episode_options,
    finish,
    size_options,
    states_options,
    threshold_options,
    training_states_option,
    unsafe_option,
)
from engine.cli.stages.value_types import COUNT, FINITE, SEED, SHARE
from engine.formatting import decimals_for, format_number
from engine.stages.search.scores import MEANINGS, PRIMARY_METRICS
from engine.stages.search.space import CUSTOM, MODES, REGIMES, SPACES, search_space
from engine.stages.validation.thresholds import RecombinationThresholds

if TYPE_CHECKING:
    from engine.stages.search.output import Found
    from engine.stages.search.setup import Workers

F = TypeVar("F", bound=Callable[..., Any])
TOP = 10


def search_options(space: str, **custom: tuple[Any, ...]) -> Callable[[F], F]:
    """Add what the searches share: parents, grid, judging, workers.

    Args:
        space: Name of the grid by default.
        **custom: What a custom grid has by default, for its help.
    """
    metrics = "; ".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items())
    options = [
        click.option("--parent-a-ckpt", type=FILE, help="Parent A; default: an untrained network."),
        click.option("--parent-b-ckpt", type=FILE, help="Parent B; likewise."),
        click.option(
            "--search-space",
            type=click.Choice(SPACES),
            default=space,
            show_default=True,
            help="Grid of crossovers and fine-tunings.",
        ),
        click.option("--max-runs", type=COUNT, help="Most children; the last ones are left out."),
        _custom("--crossover-modes", click.Choice(MODES), MODES),
        _custom("--alpha-values", SHARE, custom.get("alphas", (0.3, 0.5, 0.7))),
        _custom("--crossover-seeds", SEED, custom.get("seeds", (0, 1, 2))),
        _custom(
            "--finetune-regimes",
            click.Choice(list(REGIMES)),
            custom.get("regimes", ("short", "long")),
        ),
        click.option(
            "--reference",
            type=click.Choice(["parent_a", "both"]),
            default="parent_a",
            show_default=True,
            help="Whom children imitate while they are fine-tuned.",
        ),
        click.option(
            "--primary-metric",
            type=click.Choice(PRIMARY_METRICS),
            default="min_agreement",
            show_default=True,
            help=f"What children are ranked by. {metrics}.",
        ),
        click.option(
            "--degenerate-threshold",
            type=FINITE,
            default=0.0,
            show_default=True,
            help="Mark children whose primary metric is below; 0 marks none.",
        ),
        click.option(
            "--include-parent-baseline/--no-parent-baseline",
            default=True,
            show_default=True,
            help="Rank the parents among the children.",
        ),
        click.option(
            "--workers",
            type=COUNT,
            default=1,
            show_default=True,
            help="1 works in this process, more start a local Ray.",
        ),
        click.option(
            "--address", default="local", help="Ray cluster: auto, HOST:PORT, or ray://HOST:PORT."
        ),
        click.option(
            "--allow-insecure-cluster",
            is_flag=True,
            help="Join a Ray cluster that asks nobody for a token.",
        ),
        click.option(
            "--mixed-cpus",
            is_flag=True,
            help="Join a cluster with other kinds of CPU, though bytes may depend on the node.",
        ),
        click.option("--quiet", is_flag=True, help="Do not report progress."),
        # A search is no validator: its thresholds are recorded, and never gate anything.
        click.option("--report-only", is_flag=True, default=True, hidden=True),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _custom(flag: str, kind: Any, default: tuple[Any, ...]) -> Callable[[F], F]:
    """Return an option of a custom grid."""
    return click.option(
        flag,
        type=kind,
        multiple=True,
        help=f"For --search-space {CUSTOM}; default: {' '.join(map(str, default))}.",
    )


@click.command(cls=ManyValues)
@search_options("default")
@size_options()
@states_options(n_states=None)
@training_states_option()
@episode_options()
@threshold_options(RecombinationThresholds)
@unsafe_option()
@click.option("--eval-batch-size", type=click.IntRange(min=0), hidden=True)
@click.option(
    "--reproduce",
    type=FILE,
    metavar="RUN_CONFIG",
    help="Make the child of a run_config.json again, and tell whether it is the same.",
)
@click.option(
    "--run-dir",
    "--output-dir",
    "run_dir",
    type=FILE,
    default="runs/crossover_search",
    show_default=True,
    help="Where everything goes; started again, a search goes on there.",
)
def crossover_search(run_dir: Path, quiet: bool, reproduce: Path | None, **options: Any) -> int:
    """Try a grid of crossovers and fine-tunings, and rank the children."""
    from engine.stages.search.run import crossover_search as carry_out
    from engine.stages.search.setup import set_up

    if reproduce is not None:
        return _reproduce(reproduce, options["allow_unsafe_unpickle"])
    tell = teller(quiet)
    space = search_space(
        options.pop("search_space"),
        options.pop("max_runs"),
        options.pop("crossover_modes"),
        options.pop("alpha_values"),
        options.pop("crossover_seeds"),
        options.pop("finetune_regimes"),
    )
    workers = workers_of(options)
    search = set_up(run_dir, space, tell=tell, **options)
    with workers.start(tell) as (executor, stop):
        found = carry_out(search, run_dir, executor, stop, tell)
    show(found, run_dir)
    return 0


def _reproduce(path: Path, allow_unsafe: bool) -> int:
    """Make a child again; the exit code is 1 where it is another one."""
    from engine.stages.search.reproduction import reproduce

    same = reproduce(path, allow_unsafe)
    for name, is_same in same.items():
        click.echo(f"{path.parent / name}: {'the same bytes' if is_same else 'other bytes'}")
    return finish(all(same.values()))


def workers_of(options: dict[str, Any]) -> Workers:
    """Take out of the options what no search depends on, and return the workers."""
    from engine.stages.search.setup import Workers

    options.pop("eval_batch_size", None)  # an evaluation is one batch, whatever was documented
    del options["report_only"]
    return Workers(
        options.pop("workers"),
        options.pop("address"),
        allow_insecure_cluster=options.pop("allow_insecure_cluster"),
        mixed_cpus=options.pop("mixed_cpus"),
    )


def teller(quiet: bool) -> Callable[[str], None]:
    """Return what reports progress, on standard error."""

    def tell(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    return tell


def show(found: Found, run_dir: Path) -> None:
    """Print the head of the leaderboard, and the parents wherever they are in it."""
    ranked = [row for row in found.rows if row["rank"] is not None]
    shown = [row for row in ranked if row["rank"] <= TOP or row["is_parent_baseline"]]
    width = max((len(row["child_id"]) for row in shown), default=0)
    returns = [row["return_mean"] for row in ranked]
    is_played = None not in returns
    head = f"rank  {'child':<{width}}  {'primary':<16}  with A  with B"
    click.echo(f"{head}  return" if is_played else head)
    for row in shown:
        line = (
            f"{row['rank']:>4}  {row['child_id']:<{width}}  {row['primary_metric']:.4f} "
            f"+-{row['primary_metric_se']:.4f}  {row['child_vs_parent_a_agreement']:.4f}  "
            f"{row['child_vs_parent_b_agreement']:.4f}"
        )
        if is_played:
            line += f"  {format_number(row['return_mean'], decimals_for(returns)):>6}"
        click.echo(line)
    left_out, n_failed = len(ranked) - len(shown), len(found.rows) - len(ranked)
    if left_out:
        click.echo(f"{left_out} more in {run_dir / 'leaderboard.csv'}")
    if n_failed:
        click.echo(f"{n_failed} children failed; {run_dir / 'leaderboard.csv'} says why")
    click.echo(f"parents agree on {found.parents_agree:.4f}")
    click.echo(f"wrote {len(found.trials)} children, leaderboard.csv and more to {run_dir}")
    click.echo(f"read {run_dir / 'recommendation.txt'} first")
