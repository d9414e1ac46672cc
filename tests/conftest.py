"""Settings that all tests share."""

from hypothesis import settings

# The first example pays for imports and a busy machine is slow: time is not what these tests check.
settings.register_profile("cultivar", deadline=None)
settings.load_profile("cultivar")
