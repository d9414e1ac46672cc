"""The root of every error that a user of cultivar may see, and the errors of genomes."""


class CultivarError(Exception):
    """Root of all errors raised on purpose: its text is one clear sentence for the user."""


class GenomeError(CultivarError):
    """A genome cannot be built, read or used."""


class GenomeShapeError(GenomeError):
    """Tensors do not have the names or shapes that their network spec asks for."""


class GenomeValueError(GenomeError):
    """Tensors hold NaN, infinity, or a number that the int8 codec cannot represent."""


class GenomeFileError(GenomeError):
    """A genome or weights file is truncated, altered, or not one of ours."""


class JournalError(CultivarError):
    """The journal of a run is damaged or belongs to another run."""


class LeaderboardError(CultivarError):
    """A leaderboard file, a query on it, or one of its columns is not valid."""
