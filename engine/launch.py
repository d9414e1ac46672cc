"""Put a run together: plug-ins, run directory, workers and progress."""

from __future__ import annotations

import math
from pathlib import Path

from threadpoolctl import threadpool_limits

from engine.champion import Champion, crowned
from engine.config import RunConfig
from engine.dispatch.workers import executor_of, stop_on_signals
from engine.errors import ConfigError
from engine.evolution import evolve
from engine.hang_watch import watched
from engine.layout import JOURNAL
from engine.learning.states import load_states
from engine.learning.teachers import load_teachers
from engine.playing.environments import describe
from engine.progress import Progress
from engine.recipes import ConfiguredRecipes, make_selection
from engine.run_directory import RunDirectory
from strategies.plugins import load_plugin_file, plugin_modules


def launch(config: RunConfig, run_directory: Path, progress: Progress) -> Champion:
    """Start a run, or go on with it, and return its champion.

    Args:
        config: The run.
        run_directory: Where it is recorded: new, empty, or holding this very run.
        progress: Told what happens.

    Raises:
        RunInterruptedError: The user asked to stop.
        CultivarError: Something the user can mend; nothing that was finished is lost.
    """
    with watched(progress, config.dispatch.stall_timeout_s) as told:
        return _launch(config, run_directory, told)


def _launch(config: RunConfig, run_directory: Path, progress: Progress) -> Champion:
    for plugin in config.plugins:
        load_plugin_file(plugin)
    if config.dispatch.workers == 0 and config.dispatch.address != "local":
        raise ConfigError(
            "dispatch.workers is 0, which means no Ray, but dispatch.address is "
            f"{config.dispatch.address}; leave one of them out"
        )
    make_selection(config)
    ConfiguredRecipes(config, 1).check()
    if not (run_directory / JOURNAL).exists():
        _check(config)
    with RunDirectory.open(run_directory, config) as directory:
        champion = crowned(directory)
        if champion is not None:
            progress.note(f"{run_directory} is finished; this is what it came to")
            return champion
        with (
            threadpool_limits(1),  # as in the workers: more threads may change the bytes
            executor_of(
                config.dispatch,
                config.dispatch.address,
                config.dispatch.workers,
                plugin_modules(),
                preload=("engine.breeding",),
                allow_insecure=config.dispatch.allow_insecure_cluster,
                mixed_cpus=config.dispatch.mixed_cpus,
                tell=progress.note,
            ) as executor,
            stop_on_signals(progress.note) as stop,
        ):
            return evolve(directory, executor, progress, stop)


def _check(config: RunConfig) -> None:
    """Refuse what cannot run before there is a directory that would be held by a mistyped run."""
    task = describe(config.environment)
    load_teachers(config.teachers.files, task, config.teachers.allow_unsafe_unpickle)
    if config.states.file is not None:
        load_states(Path(config.states.file), math.prod(task.observation_shape))
