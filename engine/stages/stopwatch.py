"""CPU seconds of the parts of a command."""

from __future__ import annotations

import time


class Stopwatch:
    """Measures the CPU seconds of this process, part by part.

    What was spent before the first part, mostly on imports, counts as the part ``imports``.
    """

    def __init__(self) -> None:
        self._name = "imports"
        self._since = 0.0
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """End the part that is running, and begin another one."""
        now = time.process_time()
        self._spent[self._name] = self._spent.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now

    def record(self) -> dict[str, object]:
        """Return ``cpu_s`` of the process so far, ``parts_cpu_s``, and ``wall_s`` since it began.

        The part that is running ends here, but may go on.
        """
        self.begin(self._name)
        return {
            "cpu_s": time.process_time(),
            "parts_cpu_s": dict(self._spent),
            "wall_s": time.perf_counter() - self._started,
        }
