"""The executor that settings ask for, and what Ctrl-C means to it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType

from engine.dispatch.executor import Executor, Limits
from engine.dispatch.ray_session import joined_session, local_session
from engine.dispatch.serial import SerialExecutor


@contextlib.contextmanager
def executor_of(
    limits: Limits,
    address: str,
    n_workers: int | None,
    plugins: Sequence[ModuleType] = (),
    preload: Sequence[str] = (),
) -> Iterator[Executor]:
    """Yield an executor; what it needs is started before the block and ended after it.

    Args:
        limits: Attempts and time limits.
        address: ``local`` for a private Ray, ``auto`` for the cluster of this machine, or
            ``host:port``.
        n_workers: Workers of a private Ray; 0 works in this process, without Ray; None takes
            every core.
        plugins: Modules whose classes are sent to the workers by value.
        preload: Names of modules that workers import while the driver still prepares the work.

    Raises:
        DispatchError: Ray cannot be started or joined.
    """
    if n_workers == 0:
        yield SerialExecutor(limits)
        return
    with local_session(n_workers) if address == "local" else joined_session(address):
        # Ray reads its settings when it is imported, which the session has prepared.
        from engine.dispatch.ray_executor import RayExecutor

        executor = RayExecutor(limits, plugins, preload)
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
