"""A time limit on what the main thread of this process does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class BatchTimeoutError(Exception):
    """A batch took longer than ``dispatch.task_timeout_s``."""


class _TimeUp(BaseException):
    """Raised wherever the time limit strikes; no ``except Exception`` on its way takes it.

    Otherwise the operator that happens to run would be blamed for what its neighbors used up.
    """


@contextlib.contextmanager
def deadline(timeout_s: float) -> Iterator[None]:
    """Raise where the block takes longer than ``timeout_s``.

    SIGALRM interrupts Python code, not native code. Only the main thread can be interrupted so;
    in any other there is no limit.

    Raises:
        BatchTimeoutError: The block took too long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    except _TimeUp:
        raise BatchTimeoutError(f"no result within {timeout_s:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
