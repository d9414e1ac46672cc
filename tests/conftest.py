"""Settings and fixtures that all tests share."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The first example pays for imports and a busy machine is slow: time is not what these tests check.
settings.register_profile("cultivar", deadline=None)
settings.load_profile("cultivar")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Keep one local Ray with two workers for all tests marked ``ray``: starting it takes 4 s.

    Its environment variables, such as the token's path, stay set until the session ends.
    """
    from engine.dispatch.ray_session import local_session

    with local_session(2):
        yield


@pytest.fixture(scope="session")
def fault_row() -> Callable[..., None]:
    """Return a function that keeps a row for a table of faults, where one is asked for.

    ``scripts/document_faults.py`` sets the variable and makes the tables. All cells are text:
    ``fault``, ``how`` it is injected, how and after how long it was ``noticed``, the ``extra`` work
    that was done, and the ``outcome``.
    """

    def keep(*, fault: str, how: str, noticed: str, extra: str, outcome: str) -> None:
        path = os.environ.get("CULTIVAR_FAULT_ROWS")
        if path:
            row = {"fault": fault, "how": how, "noticed": noticed, "extra": extra}
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"outcome": outcome}) + "\n")

    return keep
