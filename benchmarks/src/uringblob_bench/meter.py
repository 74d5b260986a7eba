"""The clock of a turn: the beginning and the end of counting, and the CPU time between.

Workers never stop between warm-up and measurement: a queue that is full when counting begins
and still full when it ends is what "at depth 32" means.
"""

from __future__ import annotations

import math
import resource
import time

now = time.perf_counter


def cpu_seconds() -> tuple[float, float]:
    """Return this process's user and system seconds, kernel workers of its rings included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


class Meter:
    """Calls that end between ``begin`` and ``end`` count."""

    def __init__(self, warm_up_s: float, seconds: float) -> None:
        self.begin = now() + warm_up_s
        self.end = self.begin + seconds
        self._cpu_at_begin: tuple[float, float] | None = None
        self._cpu_at_end: tuple[float, float] | None = None

    def begun(self) -> float:
        """Note that a worker has seen the beginning of counting; return the end of counting."""
        if self._cpu_at_begin is None:
            self._cpu_at_begin = cpu_seconds()
        return self.end

    def ended(self) -> float:
        """Note that a worker has seen the end of counting."""
        if self._cpu_at_end is None:
            self._cpu_at_end = cpu_seconds()
        return math.inf

    def cpu(self) -> tuple[float, float]:
        """User and system seconds between the two."""
        if self._cpu_at_begin is None or self._cpu_at_end is None:
            return 0.0, 0.0
        user, system = (end - begin for end, begin in zip(self._cpu_at_end, self._cpu_at_begin, strict=True))
        return user, system


class Worker:
    """The latencies of one worker's calls; :meth:`passed` when a call ended beyond ``bound``."""

    __slots__ = ("_meter", "bound", "done", "last", "overrun", "seconds")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.bound = meter.begin
        self.seconds: list[float] = []
        self.done = False
        self.last = meter.begin
        #: The latency of the call that was in progress when counting ended.
        self.overrun = 0.0

    def passed(self, moment: float) -> None:
        """Discard the latencies of the warm-up, or stop."""
        if self.bound == self._meter.begin:
            # The call that ended just now counts: it is the first to end after the beginning.
            del self.seconds[:-1]
            self.bound = self._meter.begun()
        if moment >= self._meter.end:
            self.overrun = self.seconds.pop()
            self._meter.ended()
            self.done = True

    def exhausted(self, moment: float) -> None:
        """Stop: there is no more work before the end."""
        self.last = moment
        if self.bound != self._meter.begin:
            self._meter.ended()
        self.done = True
