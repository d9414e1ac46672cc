"""One thread for linear algebra, so that results are the same bytes on any number of cores."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which NumPy and torch compute on one thread.

    The libraries are looked for once in a process, which takes a millisecond.
    """
    return _controller().limit(limits=1)  # type: ignore[no-any-return]  # it has no types


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
