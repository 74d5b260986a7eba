"""Which processes hold a store's lock, for an error's message: named only where that is certain.

Linux lists the locks of this PID namespace in ``/proc/locks``, each with the process that took it.  That
process may have left its lock to a forked child, its number may be another process's by now, and the
file is named by a device that ``stat`` need not know (btrfs).  So a process counts only if it has this
file open on a descriptor that holds the lock, which its own user and root can see.
(Checked on Linux 6.18.)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from uringblob.store.range_locks import READERS

#: A line: number, kind, ADVISORY, access, process, device:inode, from, to.  A waiting lock has ``->`` second.
_KIND, _PROCESS, _FILE = 1, 4, 5
_NAMED_MAX = 3


def holders_text(fd: int) -> str:
    """Return ``", process 4711 (python3)"`` for the holders of a flock on the open file ``fd``, or ""."""
    named = [_shown(process) for process in lock_holders(fd)]
    if not named:
        return ""
    more = f" and {len(named) - _NAMED_MAX} more" if len(named) > _NAMED_MAX else ""
    return f", {', '.join(named[:_NAMED_MAX])}{more}"


def lock_holders(fd: int) -> list[int]:
    """Return the processes that are known to hold a flock on the open file ``fd``."""
    file = os.fstat(fd)
    return [process for process in dict.fromkeys(_listed(file.st_ino)) if _holds(process, file)]


def reader_pids(fd: int) -> dict[int, list[int]]:
    """Return the processes with a reader of the open file ``fd``, by the state that it holds, where that shows.

    It looks at every descriptor of every process.
    """
    found: dict[int, list[int]] = {}
    with contextlib.suppress(OSError):  # no such file system, or the file was closed just now
        file = os.fstat(fd)
        for process in filter(str.isdigit, os.listdir("/proc")):
            for seq in _states_held(process, file):
                found.setdefault(seq, []).append(int(process))
    return found


def _states_held(process: str, file: os.stat_result) -> set[int]:
    states: set[int] = set()
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        for name in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):  # closed in between
                if os.path.samestat(os.stat(f"/proc/{process}/fd/{name}"), file):
                    with open(f"/proc/{process}/fdinfo/{name}", encoding="ascii") as facts:
                        states.update(*map(_states_in, facts))
    return states


def _states_in(line: str) -> range:
    """Return the states that a line like ``lock: 1: OFDLCK ADVISORY READ -1 08:02:13 <from> <to>`` names."""
    words = line.split()
    if words[:1] != ["lock:"] or "OFDLCK" not in words or "READ" not in words:
        return range(0)
    return range(int(words[-2]) - READERS, int(words[-1]) + 1 - READERS)


def _listed(inode: int) -> Iterator[int]:
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as locks:  # Linux alone has it
        for line in locks:
            words = line.split()
            if len(words) > _FILE and words[_KIND] == "FLOCK" and words[_FILE].split(":")[-1] == str(inode):
                yield int(words[_PROCESS])


def _holds(process: int, file: os.stat_result) -> bool:
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        return any(_descriptor_holds(process, name, file) for name in os.listdir(f"/proc/{process}/fd"))
    return False


def _descriptor_holds(process: int, name: str, file: os.stat_result) -> bool:
    with contextlib.suppress(OSError):  # closed in between
        if os.path.samestat(os.stat(f"/proc/{process}/fd/{name}"), file):
            with open(f"/proc/{process}/fdinfo/{name}", encoding="ascii") as facts:
                return any(line.startswith("lock:") and " FLOCK " in line for line in facts)
    return False


def _shown(process: int) -> str:
    if process == os.getpid():
        return f"this process itself ({process})"
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="backslashreplace") as file:
            return f"process {process} ({file.read().strip()})"
    except OSError:
        return f"process {process}"
