"""The pread engine's system calls with a disk of bad luck behind them."""

from __future__ import annotations

import contextlib
import os
from unittest import mock

from uringblob.engines import posix_calls
from uringblob.engines.pread import engine as pread


class FaultyCalls:
    """Stands where ``preadv``, ``pwritev``, ``fdatasync`` and growth stand; called by its threads."""

    def __init__(self, disk):
        self._disk = disk
        self._real = posix_calls.pick_calls()

    def calls(self):
        return posix_calls.PosixCalls(self.readv, self.writev, self.sync)

    def readv(self, fd, views, offset):
        fault = self._disk.ask("read")
        if fault is None:
            return self._real.readv(fd, views, offset)
        if fault.errno:
            raise OSError(fault.errno, os.strerror(fault.errno))
        moved = fault.moved(sum(map(len, views)))
        with self._buffered(fd, os.O_RDONLY) as cached:
            return self._real.readv(cached, cut(views, moved), offset) if moved else 0

    def writev(self, fd, views, offset):
        fault = self._disk.ask("write")
        data = b"".join(views)
        moved = len(data)
        if fault is not None:
            moved = fault.moved(len(data)) if fault.moved else self._disk.landed(len(data))
        passing = self._disk.passing(f"/proc/self/fd/{fd}", offset, data[:moved])
        if fault is None:
            moved = self._real.writev(fd, views, offset)
        elif moved:
            with self._buffered(fd, os.O_RDWR) as cached:
                os.pwrite(cached, data[:moved], offset)
        passing.done = True
        if fault is not None and fault.errno:
            raise OSError(fault.errno, os.strerror(fault.errno))
        return moved

    def sync(self, fd):
        fault = self._disk.ask("sync")
        covered = self._disk.begin_sync()
        if fault is None:
            self._real.sync(fd)
            self._disk.end_sync(covered, failed=False)
            return
        self._disk.sync_failed()
        self._disk.end_sync(covered, failed=True)
        raise OSError(fault.errno, os.strerror(fault.errno))

    def grow(self, fd, size):
        fault = self._disk.ask("grow")
        if fault is None:
            posix_calls.grow_file(fd, size)
            return
        raise OSError(fault.errno, os.strerror(fault.errno))

    @contextlib.contextmanager
    def _buffered(self, fd, flags):
        cached = os.open(f"/proc/self/fd/{fd}", flags)
        try:
            yield cached
        finally:
            os.close(cached)


def cut(views, size):
    """Return the first ``size`` bytes of ``views``."""
    parts = []
    for view in views:
        parts.append(view[:size])
        size -= len(parts[-1])
    return parts


@contextlib.contextmanager
def faulty_calls(disk):
    """While entered, the pread engines that are made go through ``disk``."""
    faulty = FaultyCalls(disk)
    with (
        mock.patch.object(pread, "pick_calls", faulty.calls),
        mock.patch.object(pread, "grow_file", faulty.grow),
    ):
        yield faulty
