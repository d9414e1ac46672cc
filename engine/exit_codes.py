"""What the exit code of the command tells."""

DONE = 0
NOT_PASSED = 1
"""A validator did not pass; with a traceback, or a message of Ray's, something broke."""
USER_ERROR = 2
"""Something that the user can mend, told in one sentence."""
TEMPORARY = 75
"""Something that may mend itself, such as a cluster that is not there now (EX_TEMPFAIL)."""
INTERRUPTED = 130
"""Stopped by Ctrl-C or SIGTERM; everything that was finished is recorded."""
