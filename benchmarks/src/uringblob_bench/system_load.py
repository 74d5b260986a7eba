"""What else ran on the machine during a turn: a measurement beside a busy neighbour is worth less, and says so."""

from __future__ import annotations

import os
import resource
import time

from uringblob_bench.device import read_text

#: Fields of the first line of ``/proc/stat`` that are work: all but idle and iowait.
_WORK = (1, 2, 3, 6, 7, 8)


def machine_cpu_s() -> float:
    """Return the CPU seconds that the whole machine has worked; 0 where it does not say."""
    fields = read_text("/proc/stat").partition("\n")[0].split()
    if len(fields) <= max(_WORK):
        return 0.0
    return sum(int(fields[index]) for index in _WORK) / os.sysconf("SC_CLK_TCK")


def own_cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class CpuWatch:
    """Begins when it is made; :meth:`others` says what share of all CPUs others have used since."""

    def __init__(self) -> None:
        self._began = (machine_cpu_s(), own_cpu_s(), time.perf_counter())

    def others(self) -> float:
        """Return a share from 0 to 1: other programs, and the kernel's own threads."""
        machine, own, moment = self._began
        seconds = (time.perf_counter() - moment) * (os.cpu_count() or 1)
        used = (machine_cpu_s() - machine) - (own_cpu_s() - own)
        return min(max(used / seconds, 0.0), 1.0) if seconds > 0 else 0.0
