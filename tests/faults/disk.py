"""What stands between a real engine and its file: which request fails, and what a lost flush loses.

A real file system cannot be made to lose what a failed fsync covered, so the writes are written
down as they pass, with what was there before.  When an fsync fails, any of the writes that it
covered may be gone for good; they are taken out of the file when the test says that the machine
has forgotten its cache (:meth:`FaultyDisk.restart`).  A store that believed a later success then
shows what it lost.
"""

from __future__ import annotations

import dataclasses
import os
import random
import threading

SECTOR = 512


@dataclasses.dataclass(eq=False)
class Passed:
    """A write that reached the file; ``done`` when the engine was told so, ``lost`` by an fsync."""

    offset: int
    before: bytes
    after: bytes
    done: bool = False
    durable: bool = False
    lost: bool = False


class FaultyDisk:
    """One store file's luck.

    ``faults(index, kind)`` is asked about every request, counted from 0 when it is set; kinds are
    ``"read"``, ``"write"``, ``"sync"`` and ``"grow"``.  From any thread.
    """

    def __init__(self, seed=0, *, loses=True):
        self.faults = None
        self.requests = 0
        self.passed = []
        self.syncs_since_failure = None
        self.syncs_failed = 0
        self._loses = loses
        self._rng = random.Random(seed)
        self._lock = threading.Lock()

    def ask(self, kind):
        """Return the fault of the next request, which is of this kind, or ``None``."""
        with self._lock:
            if self.faults is None:
                return None
            if kind == "sync" and self.syncs_since_failure is not None:
                self.syncs_since_failure += 1
            index, self.requests = self.requests, self.requests + 1
            fault = self.faults(index, kind)
            if fault is None or (kind in {"sync", "grow"} and not fault.errno):
                return None  # what moves no bytes cannot move fewer
            if kind == "sync" and self.syncs_since_failure is None:
                self.syncs_since_failure = 0
            return fault

    def landed(self, size):
        """Return how much of a write of ``size`` bytes that failed is in the file all the same."""
        with self._lock:
            return self._rng.choice((0, size // 2, size))

    def sync_failed(self):
        """An fsync ran and failed; one whose chain was cut before it never ran."""
        with self._lock:
            self.syncs_failed += 1

    # --- what passes ---------------------------------------------------------------------

    def passing(self, path, offset, data):
        """A write is about to reach the file at ``path``; returns it."""
        if not self._loses:
            return Passed(offset, b"", b"")
        fd = os.open(path, os.O_RDONLY)
        try:
            write = Passed(offset, os.pread(fd, len(data), offset), bytes(data))
        finally:
            os.close(fd)
        with self._lock:
            self.passed.append(write)
        return write

    def begin_sync(self):
        """Return what an fsync that begins now covers."""
        with self._lock:
            return [write for write in self.passed if write.done and not (write.durable or write.lost)]

    def end_sync(self, covered, *, failed):
        """It ended: what it covered is durable, or it may be lost, whatever comes later."""
        with self._lock:
            for write in covered:
                if not failed:
                    write.durable = not write.lost
                elif not write.durable:
                    write.lost = self._rng.random() < 0.7

    def restart(self, path):
        """Make the file what the medium holds: without the lost writes."""
        sectors = {}
        for write in self.passed:
            for at in range(0, len(write.after), SECTOR):
                place = write.offset + at
                if place not in sectors:
                    sectors[place] = write.before[at : at + SECTOR].ljust(SECTOR, b"\0")
                if not write.lost:
                    sector = write.after[at : at + SECTOR]
                    sectors[place] = sector + sectors[place][len(sector) :]
        lost = any(write.lost for write in self.passed)
        self.passed = []
        if not lost:
            return
        fd = os.open(path, os.O_RDWR)
        try:
            size = os.fstat(fd).st_size
            for place, sector in sectors.items():
                os.pwrite(fd, sector[: max(0, size - place)], place)
        finally:
            os.close(fd)
