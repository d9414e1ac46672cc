"""The errors that choosing, loading and running strategies may raise."""

from populations.errors import CultivarError


class StrategyError(CultivarError):
    """Root of the errors of this package."""


class UnknownOperatorError(StrategyError):
    """No crossover, mutation or selection has this name."""


class OperatorNameError(StrategyError):
    """The name of an operator is taken already, or cannot be a name."""


class OperatorParameterError(StrategyError):
    """An operator has no such parameter, or refuses its value."""


class PluginError(StrategyError):
    """A plug-in cannot be loaded, is not an operator, or declares what cannot be."""


class AlignmentError(StrategyError):
    """Parents cannot be aligned with what was given."""


class NeedError(StrategyError):
    """An operator reads what it does not declare, or its parents have no common ancestor."""


class SelectionError(StrategyError):
    """There are too few candidates to select from."""


class ConformanceError(StrategyError, AssertionError):
    """An operator breaks the contract; the text says where, and how to mend it."""
