"""Put a run together: plug-ins, run directory, workers, progress, and what Ctrl-C means."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from threadpoolctl import threadpool_limits

from engine.champion import Champion, crowned
from engine.config import DispatchConfig, RunConfig
from engine.dispatch.executor import Executor
from engine.dispatch.ray_session import joined_session, local_session
from engine.dispatch.serial import SerialExecutor
from engine.errors import ConfigError
from engine.evolution import evolve
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
    for plugin in config.plugins:
        load_plugin_file(plugin)
    if config.dispatch.workers == 0 and config.dispatch.address != "local":
        raise ConfigError(
            "dispatch.workers is 0, which means no Ray, but dispatch.address is "
            f"{config.dispatch.address}; leave one of them out"
        )
    make_selection(config)
    ConfiguredRecipes(config, 1).check(config.evolution.population)
    if not (run_directory / JOURNAL).exists():
        _check(config)
    with RunDirectory.open(run_directory, config) as directory:
        champion = crowned(directory)
        if champion is not None:
            progress.note(f"{run_directory} is finished; this is what it came to")
            return champion
        with (
            threadpool_limits(1),  # as in the workers: more threads may change the bytes
            _workers(config.dispatch) as executor,
            stop_on_signals(progress.note) as stop,
        ):
            return evolve(directory, executor, progress, stop)


def _check(config: RunConfig) -> None:
    """Refuse what cannot run before there is a directory that would be held by a mistyped run."""
    task = describe(config.environment)
    load_teachers(config.teachers.files, task, config.teachers.allow_unsafe_unpickle)
    if config.states.file is not None:
        load_states(Path(config.states.file), math.prod(task.observation_shape))


@contextlib.contextmanager
def _workers(settings: DispatchConfig) -> Iterator[Executor]:
    """Yield the executor that the settings ask for."""
    if settings.workers == 0:
        yield SerialExecutor(settings)
        return
    session = (
        local_session(settings.workers)
        if settings.address == "local"
        else joined_session(settings.address)
    )
    with session:
        # Ray reads its settings when it is imported, which the session has prepared.
        from engine.dispatch.ray_executor import RayExecutor

        executor = RayExecutor(settings, plugin_modules())
        try:
            yield executor
        finally:
            executor.close()


@contextlib.contextmanager
def stop_on_signals(note: Callable[[str], None]) -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; the second one stops at once.

    Args:
        note: Told what the first signal does.
    """
    stop = threading.Event()

    def ask_to_stop(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        note("stopping after what is in flight; once more stops at once")

    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, ask_to_stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
