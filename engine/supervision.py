"""Carry a run out in a child process, and start it again where going on may help.

A driver is killed, runs out of memory, or is ended by Ray a minute after the head of its cluster
was lost, from C++ and without an exception: only another process can go on with the run then. It
stays small, since it imports neither torch nor Ray.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine.errors import ConfigError, RunInterruptedError, SupervisionError
from engine.exit_codes import DONE, INTERRUPTED, TEMPORARY, USER_ERROR
from engine.formatting import format_duration
from engine.layout import CONFIG, JOURNAL
from engine.run_lock import take_lock

RESTARTS = 10
"""Restarts in a row that bring the run no further before it is given up."""
OUTAGE_S = 24 * 3600.0
"""Seconds for which a cluster may be away."""
FIRST_DELAY_S = 1.0
"""Seconds before a restart; doubled after each that brought the run no further."""
LONGEST_DELAY_S = 60.0

KILLED_BY = 3
"""Signals that a child gets; a run stops after what is in flight at the first, at once at the
second, and is killed at this one."""
FINAL = (DONE, USER_ERROR, INTERRUPTED)
"""Exit codes after which starting again would change nothing, or is not wanted."""
NOT_STARTED = 1
"""Stands for the exit code of a process that could not be started."""
_STOPPING = {signal.SIGINT, signal.SIGTERM}
_WATCHED = {*_STOPPING, signal.SIGCHLD, signal.SIGTSTP}
_PR_SET_PDEATHSIG = 1
_LINE_AND_CURSOR = "\r\n\x1b[?25h"
"""Ends the line of a terminal and shows its cursor, which a view that was killed has hidden."""


class Patience:
    """Decides whether and when a run that ended early is started again.

    Args:
        n_bytes: Size of the journal when the run is first started.
        has_cluster: Whether the run works on a cluster, which may be away. A Ray of this machine is
            none: where that does not start, something is broken.
        clock: Seconds from any origin.
    """

    def __init__(
        self, n_bytes: int, has_cluster: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._n_bytes = n_bytes
        self._has_cluster = has_cluster
        self._clock = clock
        self._n_idle = 0  # restarts since the last progress
        self._n_broken = 0  # those of them that were not for want of a cluster
        self._away_since: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether the run ended last for want of a cluster."""
        return self._away_since is not None

    def delay_s(self, code: int, n_bytes: int) -> float | None:
        """Return after how many seconds to start again, or None where the run is given up.

        Args:
            code: How the process ended: its exit code, or minus the signal that killed it.
            n_bytes: Size of the journal. It shrinks where half a line is cut off, so that only
                what is larger than ever before is progress.
        """
        now = self._clock()
        if n_bytes > self._n_bytes:
            self._n_bytes, self._n_idle, self._n_broken, self._away_since = n_bytes, 0, 0, None
        if code == TEMPORARY and self._has_cluster:
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since > OUTAGE_S:
                return None
        else:
            self._away_since = None
            self._n_broken += 1
            if self._n_broken > RESTARTS:
                return None
        delay_s = min(FIRST_DELAY_S * 2.0 ** min(self._n_idle, 10), LONGEST_DELAY_S)
        self._n_idle += 1
        return delay_s


def supervise(run_directory: Path, has_cluster: bool, tell: Callable[[str], None]) -> None:
    """Return in a child process that is to carry out the run; this process stays here.

    It waits for the child. Where that ends with an exit code of ``FINAL``, this process exits with
    the same one. Where it ends in any other way, another child is started as long as that may help
    (see :class:`Patience`), and then there is a ``SupervisionError``, exit code 2. SIGINT and
    SIGTERM are handed on to the child, which is not started again then; the third one kills it,
    since a call of Ray that hangs heeds no signal. If this process is killed, the kernel kills the
    child.

    Call it before anything has started a thread.

    Args:
        run_directory: The run, whose journal tells whether it gets on.
        has_cluster: Whether it works on a cluster, which may be away for a while.
        tell: Told of restarts, one line each.

    Raises:
        ConfigError: This system is not Linux.
        RunDirectoryError: Somebody else has taken the run between two of its processes.
        RunInterruptedError: A signal came while no child was running, or one that was asked to stop
            ended otherwise; exit code 130.
        SupervisionError: Starting again has not helped.
        SystemExit: The run has ended, with an exit code of ``FINAL``.
    """
    if sys.platform != "linux":
        raise ConfigError(
            "--supervise needs Linux: start 'cultivar resume' again by other means, or run it there"
        )
    # Blocked signals wait until they are asked for, so that none can come at a wrong moment.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    # Who started us may have it ignored: then the kernel forgets children, and tells of none.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    patience = Patience(_size(run_directory / JOURNAL), has_cluster)
    while True:
        try:
            child = _fork()
        except OSError as error:  # such as too many processes
            code, stopped, ending = NOT_STARTED, False, f"was not started: {error.strerror}"
        else:
            if child == 0:
                return
            code, stopped = _wait_for(child)
            if code in FINAL:
                sys.exit(code)
            ending = _ending(code, has_cluster)
            if code != TEMPORARY:
                _restore_terminal()
        again = _how_to_go_on(run_directory)
        if stopped:
            raise RunInterruptedError(f"stopped; {again}")
        delay_s = patience.delay_s(code, _size(run_directory / JOURNAL))
        if delay_s is None:
            raise SupervisionError(_why_given_up(ending, patience.is_away, again))
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        tell(f"{at}: the process of the run {ending}; it is started again in {delay_s:g} s")
        with _lock(run_directory):
            is_stopped = _is_stopped_within(delay_s)
        if is_stopped:
            raise RunInterruptedError(f"stopped; {again}")


def _lock(run_directory: Path) -> contextlib.AbstractContextManager[object]:
    """Lock the run between two of its processes, or else nobody would know that it goes on."""
    if not (run_directory / CONFIG).is_file():
        return contextlib.nullcontext()
    return take_lock(run_directory, "which is about to start the run again")


def _fork() -> int:
    """Return the id of a new child process, and 0 in it; it gets the signals that come from now on.

    The child has a process group of its own: Ctrl-C of a terminal goes to the supervisor alone,
    which hands it on, or else the child would get it twice.
    """
    supervisor = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody may be there to read it
            stream.flush()
    child = os.fork()
    if child == 0:
        # Killed and not asked to stop: it may hang, and a run can be killed at any moment.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os.kill(os.getpid(), signal.SIGKILL)
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # lets it write where 'stty tostop' is set
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    return child


def _wait_for(child: int) -> tuple[int, bool]:
    """Wait for the end of a child; return how it ended, and whether it had been asked to stop.

    There is no limit of time: only the child knows what takes long, and says so itself.
    """
    asked = 0
    while True:
        number = signal.sigwaitinfo(_WATCHED).si_signo
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status), asked > 0
        elif number == signal.SIGTSTP:  # Ctrl-Z, until the shell lets us go on
            _send(child, signal.SIGSTOP)
            _stop_here()
            _send(child, signal.SIGCONT)
        else:
            asked += 1
            _send(child, number if asked < KILLED_BY else signal.SIGKILL)


def _send(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended, as SIGCHLD is about to tell
        os.kill(child, number)


def _stop_here() -> None:
    """Stop like any other process at Ctrl-Z: not where there is no shell to let it go on.

    The kernel knows that, and stops no process of an orphaned group, as with ``ssh -t``.
    """
    signal.raise_signal(signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTSTP])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTSTP])


def _is_stopped_within(delay_s: float) -> bool:
    """Wait; return at once where a signal asks to stop."""
    end = time.monotonic() + delay_s
    while (left_s := end - time.monotonic()) > 0:
        found = signal.sigtimedwait({*_STOPPING, signal.SIGTSTP}, left_s)
        if found is None:
            break
        if found.si_signo in _STOPPING:
            return True
        _stop_here()
    return False


def _restore_terminal() -> None:
    """Leave the terminal as a child would have left it that was not killed."""
    with contextlib.suppress(OSError):  # it may be gone
        if sys.stderr.isatty():
            sys.stderr.write(_LINE_AND_CURSOR)
            sys.stderr.flush()


def _ending(code: int, has_cluster: bool) -> str:
    if code == TEMPORARY and has_cluster:
        return "found no cluster to work on"
    if code < 0:
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code}"


def _why_given_up(ending: str, is_away: bool, again: str) -> str:
    if is_away:
        return f"gave up: there was no cluster for {format_duration(OUTAGE_S)}; {again}"
    return (
        f"gave up: the process of the run {ending}, and {RESTARTS} restarts in a row have "
        f"brought the run no further; mend that, then {again}"
    )


def _how_to_go_on(run_directory: Path) -> str:
    if (run_directory / CONFIG).is_file():
        return f"go on with 'cultivar resume {run_directory}'"
    return "give the same command again"


def _size(journal: Path) -> int:
    return journal.stat().st_size if journal.exists() else 0
