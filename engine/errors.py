"""Errors of the engine that a user can cause and mend."""

from populations.errors import CultivarError


class ConfigError(CultivarError):
    """A configuration file, an override, or a combination of settings is not valid."""


class TaskError(CultivarError):
    """An environment is unknown, lacks its extra, or has spaces that a Q-network cannot play."""


class TeacherError(CultivarError):
    """A teacher file is missing, damaged, unsafe, or does not fit the environment."""


class StatesError(CultivarError):
    """A states file is missing, damaged, or of the wrong width."""


class RunDirectoryError(CultivarError):
    """A run directory holds another run, is in use, or lacks what is asked of it."""


class DispatchError(CultivarError):
    """Ray cannot be started or joined, or all workers are gone."""


class ClusterUnavailableError(DispatchError):
    """There is no Ray to work on now; there may be later, without anybody changing a setting."""


class SupervisionError(CultivarError):
    """A run under ``--supervise`` ended early again and again."""


class RunInterruptedError(CultivarError):
    """The run was asked to stop; everything that was finished is recorded."""


class StageError(CultivarError):
    """A stage of the pipeline was given a file, a flag or networks that it cannot work with."""


class ConceptionError(CultivarError):
    """Parents could not be crossed, or their child not be mutated."""
