"""``cultivar evolve`` and ``cultivar resume``."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, TextIO, cast

import click

from engine.config import RunConfig
from engine.config_file import load_config
from engine.errors import ConfigError, RunDirectoryError, RunInterruptedError
from engine.layout import CHAMPION, CONFIG, JOURNAL, RECIPES, SUMMARY
from engine.live_progress import make_progress
from engine.unread import LastingStream, though_unread

TOP = 10


@click.command()
@click.argument("preset_or_file")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Default: runs/<preset>-<seed>.")
@click.option("--seed", type=int, help="Overrides the setting seed.")
@click.option("--workers", type=int, help="Workers of a local Ray; 0 works without Ray.")
@click.option("--address", help="local, auto (a cluster here), HOST:PORT, or ray://HOST:PORT.")
@click.option(
    "--allow-insecure-cluster",
    is_flag=True,
    help="Join a Ray cluster that asks nobody for a token.",
)
@click.option("--plugin", "plugins", multiple=True, help="Python file with operators of your own.")
@click.option("--operator", "operators", multiple=True, help="Breed with this operator alone.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting.")
@click.option(
    "--allow-unsafe-unpickle",
    is_flag=True,
    help="Let .pt files of teachers run their code while they are loaded.",
)
@click.option(
    "--supervise",
    is_flag=True,
    help="Start the run again by itself where it was killed or its cluster was lost.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but the champion.")
def evolve(
    preset_or_file: str,
    run_dir: Path | None,
    seed: int | None,
    workers: int | None,
    address: str | None,
    allow_insecure_cluster: bool,
    plugins: tuple[str, ...],
    operators: tuple[str, ...],
    overrides: tuple[str, ...],
    allow_unsafe_unpickle: bool,
    supervise: bool,
    quiet: bool,
) -> None:
    """Breed a champion, as a preset or a YAML file says.

    Started again with the same settings and directory, a run goes on where it stopped.
    """
    settings = list(overrides)
    settings += [f"seed={seed}"] if seed is not None else []
    if plugins:
        settings.append(f"plugins={json.dumps(plugins)}")
    if allow_unsafe_unpickle:
        settings.append("teachers.allow_unsafe_unpickle=true")
    if operators:
        if any(override.startswith("evolution.recipes") for override in overrides):
            raise ConfigError(
                "--operator makes recipes of its own: give either --operator or "
                "--set evolution.recipes=..., not both"
            )
        recipes = [{"operator": name} for name in operators]
        settings.append(f"evolution.recipes={json.dumps(recipes)}")
    config = load_config(
        preset_or_file, settings + _dispatch(workers, address, allow_insecure_cluster)
    )
    # A run can be resumed from another folder, and its plug-ins are needed then.
    found = tuple(str(Path(plugin).resolve()) for plugin in config.plugins)
    config = config.model_copy(update={"plugins": found})
    directory = run_dir or Path("runs") / f"{Path(preset_or_file).stem}-{config.seed}"
    if config.name == RunConfig.model_fields["name"].default:
        config = config.model_copy(update={"name": directory.resolve().name})
    _launch(config, directory, supervise, quiet)


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--workers", type=int, help="Workers of a local Ray; 0 works without Ray.")
@click.option("--address", help="local, auto (a cluster here), HOST:PORT, or ray://HOST:PORT.")
@click.option(
    "--allow-insecure-cluster",
    is_flag=True,
    help="Join a Ray cluster that asks nobody for a token.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting dispatch.*, no other. With another task_timeout_s or number of attempts, "
    "children that are still to be born may fail that would have been ok, or the other way round.",
)
@click.option(
    "--supervise",
    is_flag=True,
    help="Start the run again by itself where it was killed or its cluster was lost.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but the champion.")
def resume(
    run_dir: Path,
    workers: int | None,
    address: str | None,
    allow_insecure_cluster: bool,
    overrides: tuple[str, ...],
    supervise: bool,
    quiet: bool,
) -> None:
    """Go on with a run that was stopped; it ends as if it had not been.

    It works where it did before, unless --workers asks for a Ray of this machine (or, with 0, for
    none) or --address for a cluster; --set dispatch.workers and dispatch.address do the same.
    """
    if not (run_dir / CONFIG).is_file():
        raise RunDirectoryError(f"{run_dir} is not a run directory: it has no {CONFIG}")
    for override in overrides:
        if not override.strip().startswith("dispatch."):
            raise ConfigError(
                f"--set {override}: a run that has begun keeps its settings; resume takes those "
                "that say how it is dispatched, such as dispatch.stall_timeout_s=30"
            )
    asked = [*overrides, *_dispatch(workers, address, allow_insecure_cluster)]
    config = load_config(str(run_dir / CONFIG), asked)
    named = {setting.partition("=")[0].strip() for setting in asked}
    moves = named & {"dispatch.workers", "dispatch.address"}
    if moves == {"dispatch.workers"}:
        config = load_config(str(run_dir / CONFIG), [*asked, "dispatch.address=local"])
    elif moves == {"dispatch.address"} and config.dispatch.address != "local":
        # A run without Ray has 0 there.
        config = load_config(str(run_dir / CONFIG), [*asked, "dispatch.workers=null"])
    _launch(config, run_dir, supervise, quiet)


def _dispatch(workers: int | None, address: str | None, allow_insecure: bool) -> list[str]:
    given = {
        "workers": workers,
        "address": address,
        "allow_insecure_cluster": "true" if allow_insecure else None,
    }
    return [f"dispatch.{name}={value}" for name, value in given.items() if value is not None]


def _launch(config: RunConfig, run_dir: Path, supervise: bool, quiet: bool) -> None:
    if supervise:
        from engine import supervision

        # What follows is done in a process of its own.
        supervision.supervise(run_dir, config.dispatch.address != "local", _tell)
    progress = make_progress(sys.stderr, quiet)
    try:
        from engine.launch import launch  # imports torch, which ``--help`` does not need

        champion = launch(config, run_dir, progress)
    except KeyboardInterrupt:
        if not (run_dir / CONFIG).is_file():
            raise
        raise RunInterruptedError(
            f"stopped at once; go on with 'cultivar resume {run_dir}'"
        ) from None
    finally:
        progress.close()
    # rich ends a program whose pipe is closed, with an exit code of its own.
    with contextlib.redirect_stdout(cast(TextIO, LastingStream(sys.stdout))):
        if not quiet:
            _print_leaderboard(run_dir)
        _print_champion(champion.summary, run_dir)


def _tell(text: str) -> None:
    with though_unread(sys.stderr):
        click.echo(text, err=True)


def _print_leaderboard(run_dir: Path) -> None:
    """Print the ten best rows."""
    from engine.cli.leaderboard import print_finish

    print_finish(run_dir, TOP)


def _print_champion(summary: dict[str, Any], run_dir: Path) -> None:
    best = max(summary["teachers"], key=lambda teacher: teacher["fitness_holdout"])
    click.echo(
        f"champion {summary['genome']}, {summary['kind']} of generation {summary['generation']}\n"
        f"  return       {summary['fitness_holdout']:.1f} ± {summary['fitness_holdout_sem']:.1f} "
        f"over {summary['episodes_holdout']} held-out episodes; "
        f"best teacher {best['fitness_holdout']:.1f}\n"
        f"  size         {summary['size_bytes']:,} bytes, {summary['parameters']:,} parameters; "
        f"that teacher {best['size_bytes']:,} bytes"
    )
    for label, name in (
        ("genome", CHAMPION),
        ("summary", SUMMARY),
        ("leaderboard", "leaderboard.csv"),
        ("recipes", RECIPES),
        ("all genomes", "genomes"),
        ("journal", JOURNAL),
    ):
        click.echo(f"  {label:<12} {run_dir / name}")
