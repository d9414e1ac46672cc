"""The executor that settings ask for, and what Ctrl-C means to it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType

from engine.dispatch.executor import Executor, Limits
from engine.dispatch.handshake import CLIENT
from engine.dispatch.ray_session import joined_session, local_session
from engine.dispatch.serial import SerialExecutor
from engine.errors import ClusterUnavailableError


@contextlib.contextmanager
def executor_of(
    limits: Limits,
    address: str,
    n_workers: int | None,
    plugins: Sequence[ModuleType] = (),
    preload: Sequence[str] = (),
    *,
    allow_insecure: bool = False,
    mixed_cpus: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[Executor]:
    """Yield an executor; what it needs is started before the block and ended after it.

    Args:
        limits: Attempts and time limits.
        address: ``local`` for a private Ray, ``auto`` for the cluster of this machine,
            ``host:port``, or ``ray://host:port`` of its server for clients.
        n_workers: Workers of a private Ray; 0 works in this process, without Ray; None takes
            every core.
        plugins: Modules whose classes are sent to the workers by value.
        preload: Names of modules that workers import while the driver still prepares the work.
        allow_insecure: Whether a cluster may be joined that asks nobody for a token.
        mixed_cpus: Whether its CPUs may be of another kind than this machine's.
        tell: Called with what is worth knowing about a cluster, and with what is waited for.

    Raises:
        DispatchError: Ray cannot be started or joined, a node would not do the work as this
            machine would, or the connection through Ray Client was lost.
    """
    if n_workers == 0:
        yield SerialExecutor(limits)
        return
    is_local = address == "local"
    with local_session(n_workers) if is_local else joined_session(address, allow_insecure):
        # Ray reads its settings when it is imported, which the session has prepared.
        from engine.dispatch.nodes import check_nodes
        from engine.dispatch.ray_executor import RayExecutor

        roster = None if is_local else check_nodes(allow_insecure, mixed_cpus, tell)
        executor = RayExecutor(limits, plugins, preload, tell, roster)
        try:
            yield executor
        except ConnectionError as error:
            # Not Ray's: whoever reads our output, or a socket of somebody else, has gone.
            if not address.startswith(CLIENT) or isinstance(error, BrokenPipeError):
                raise
            raise ClusterUnavailableError(
                f"the connection to {address} was lost; what was finished is recorded: go on with "
                "the same command once the cluster is back"
            ) from error
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
