"""Settings and fixtures that all tests share."""

from collections.abc import Iterator

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
