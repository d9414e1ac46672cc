"""``cultivar status`` and ``cultivar show``: look at a run, and at one genome of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from engine.cli.genome_text import print_genome
from engine.cli.status_text import print_overview, print_status
from engine.genome_report import find_row, genome_report
from engine.run_record import find_genome, read_run
from engine.run_status import run_status
from populations.errors import GenomeFileError
from populations.storage import save_genome

STATUS_EXAMPLES = """\b
Examples:
  cultivar status runs/cartpole-0
  cultivar status runs/*
  watch cultivar status runs/cartpole-0
"""
SHOW_EXAMPLES = """\b
Examples:
  cultivar show runs/cartpole-0 champion --depth 5
  cultivar show runs/cartpole-0 3f9c --export best.safetensors
"""

_form = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)


@click.command(epilog=STATUS_EXAMPLES)
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path))
@_form
def status(run_dirs: tuple[Path, ...], form: str) -> None:
    """Show how the runs in RUN_DIRS are getting on; they may be in progress.

    One run is shown in full, several with a line each. "vs parent" is fitness minus that of the
    fitter parent. It is compared with the fitness it was chosen for, which flatters it: see
    whether children do better than the control "clone".

    Of recipes, "best gain" is the highest such difference of a child, and "reward", from 0 to 1,
    tells how its children rank among those of their generation by it: 0.5 is the average, and what
    is not scored gets 0. A bandit expects the reward shown, in which older generations count less.
    "chance" is how likely the next child gets the recipe.
    """
    found = [run_status(read_run(path, brief=True)) for path in run_dirs]
    if form == "json":
        _echo_json([dataclasses.asdict(one) for one in found])
        return
    console = Console(highlight=False)
    if len(found) > 1:
        print_overview(console, found)
    else:
        print_status(console, found[0])


@click.command(epilog=SHOW_EXAMPLES)
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("genome")
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Generations of ancestors in the family tree.",
)
@click.option(
    "--export",
    type=click.Path(path_type=Path),
    help="Write the genome to this file.",
    metavar="FILE",
)
@_form
def show(run_dir: Path, genome: str, depth: int, export: Path | None, form: str) -> None:
    """Show what is known of GENOME: an id, the beginning of one, or ``champion``."""
    run = read_run(run_dir)
    row = find_row(run, genome)
    found = find_genome(run, row)
    report = genome_report(run, row, found, depth)
    if export is not None:
        try:
            save_genome(export, found)
        except OSError as error:
            raise GenomeFileError(f"cannot write {export}: {error.strerror}") from error
    if form == "json":
        _echo_json(dataclasses.asdict(report))
    else:
        print_genome(Console(highlight=False), report)
    if export is not None:
        click.echo(f"wrote {export} ({export.stat().st_size:,} bytes)", err=True)


def _echo_json(values: Any) -> None:
    click.echo(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False))
