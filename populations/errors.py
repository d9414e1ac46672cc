"""The root of every error that a user of cultivar may see, and the errors of genomes."""

LONGEST = 4000
"""Characters of a message: a file of somebody else may hold names that are megabytes long."""


class CultivarError(Exception):
    """Root of all errors raised on purpose: its text is one clear sentence for the user.

    Messages quote files of others, whose control characters could change a terminal. So they are
    written as escapes, and what is too long is cut.
    """

    def __str__(self) -> str:
        """Return the text as it can be printed anywhere."""
        text = super().__str__()
        if len(text) > LONGEST:
            text = f"{text[: LONGEST - 3]}..."
        if text.isprintable():
            return text
        return "".join(
            character
            if character.isprintable() or character == "\n"
            else character.encode("unicode_escape").decode()
            for character in text
        )


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
