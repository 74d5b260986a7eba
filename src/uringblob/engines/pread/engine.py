"""The engine for everywhere: a few threads over ``preadv``, ``pwritev`` and ``fdatasync``.

What the threads do is here; how requests get to them and back, whatever fails, is in
:mod:`uringblob.engines.pread.crew`.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import threading
from collections.abc import Sequence
from typing import Any, Final

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import BufferPool
from uringblob.completion import Completion
from uringblob.engines.base import IoCounters
from uringblob.engines.own_descriptor import OwnDescriptor
from uringblob.engines.posix_calls import PosixCalls, grow_file, number_of, pick_calls, read_now, size_of_file
from uringblob.engines.pread.coalesce import CoalescedWrite, Part
from uringblob.engines.pread.crew import Crew
from uringblob.owner import Owner

#: Enough to keep a solid-state drive busy; each blocks in one call at a time.
THREADS_MAX = 8

_NO_MEMORY: Final = -errno.ENOMEM


class PreadEngine(Crew, Owner):
    """Positional I/O on one open file by a small thread pool; see :class:`.base.Engine`.

    The descriptor that it is given is the caller's and stays open.  All methods belong to the loop's
    thread, except :meth:`read_now` and :meth:`abandon`.
    """

    name = "pread"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        *,
        pool: BufferPool,
        direct_io: bool,
        memory_align: int,
        reason: str,
    ) -> None:
        self.reason = reason
        self.direct_io = direct_io
        self.memory_align = memory_align
        self.pool = pool
        self.counters = IoCounters()
        self._calls = pick_calls()
        self._run: CoalescedWrite | None = None  # the newest, to which the next write may belong
        self._grow_lock = threading.Lock()  # taken by worker threads only
        super().__init__(loop, self.counters, OwnDescriptor(fd), THREADS_MAX)

    @property
    def _fd(self) -> int:
        return self._descriptor.fd

    def read(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        """Fill ``frames``, in order, from ``offset`` on; yields bytes read (0: end of file)."""
        self.counters.reads += 1
        return self.ask(
            _count_read,
            _NO_MEMORY,
            functools.partial(number_of, self._calls.readv, self._fd, _views(frames), offset),
        )

    def read_each(self, reads: Sequence[tuple[int, IoBuffer]], answers: list[Completion[int]]) -> None:
        """Fill each frame from its own offset on; each one's completion goes into ``answers``."""
        for offset, frame in reads:
            answers.append(self.read(offset, (frame,)))

    def read_now(self, offset: int, frame: IoBuffer) -> int:
        """Fill ``frame`` in the calling thread, which may be any; bytes read or ``-errno``."""
        descriptor = self._descriptor  # kept meanwhile, should the engine be abandoned
        return read_now(self._calls, descriptor.fd, offset, frame.view)

    def write(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        """Write ``frames``, in order, from ``offset`` on; yields bytes written."""
        self.counters.writes += 1
        completion = self._new_completion()
        part = Part(completion, offset, _views(frames), sum([frame.size for frame in frames]))
        run = self._run
        pending = self._mailbox.pending
        # First, because a part that is added is written, whatever is raised afterwards.
        pending.add(completion)
        try:
            if run is None or not run.add(part) or run.missed(part):
                write = functools.partial(_write, self._calls, self._fd)
                run = CoalescedWrite(part, write, self._mailbox)
                self._jobs.put(run)
                self._run = run  # last: nothing may be added to a run that no thread will come to
        except BaseException:
            pending.discard(completion)
            raise
        if not self._threads:
            self._work_here()
        return completion

    def write_then_sync(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[tuple[int, int]]:
        """Write, and if that was whole, sync: one job; else ``-ECANCELED`` instead of the sync."""
        self.counters.writes += 1
        size = sum(frame.size for frame in frames)
        call = functools.partial(_write_then_sync, self._calls, self._fd, _views(frames), offset, size)
        return self.ask(_count_write_then_sync, (_NO_MEMORY, _NO_MEMORY), call)

    def sync(self) -> Completion[int]:
        """fdatasync (on macOS: ``F_FULLFSYNC``); yields 0."""
        self.counters.syncs += 1
        call = functools.partial(number_of, _sync, self._calls, self._fd)
        return self.ask(_count_nothing, _NO_MEMORY, call)

    def grow(self, size: int) -> Completion[int]:
        """Allocate the file up to ``size`` bytes; yields 0.  After a failure nothing has changed."""
        call = functools.partial(number_of, _grow, self._grow_lock, self._fd, size)
        return self.ask(_count_nothing, _NO_MEMORY, call)

    def file_size(self) -> int:
        """The file's length in bytes, now, or ``-errno``."""
        return size_of_file(self._fd)

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return (
            f"<PreadEngine {state} fd={self._fd} direct_io={self.direct_io} "
            f"in_flight={self.in_flight} threads={len(self._threads)}>"
        )


def _views(frames: Sequence[IoBuffer]) -> list[memoryview]:
    return [frame.view for frame in frames]


def _write(calls: PosixCalls, fd: int, views: list[memoryview], offset: int) -> Any:
    try:
        return number_of(calls.writev, fd, views, offset)
    except MemoryError:
        return _NO_MEMORY
    except BaseException as error:  # noqa: BLE001 - it goes to whoever awaits the completion
        # Its traceback knows the callers' frames, and so the views of those who are written beside this one.
        return error.with_traceback(None)


def _write_then_sync(
    calls: PosixCalls, fd: int, views: list[memoryview], offset: int, size: int
) -> tuple[int, int]:
    try:
        put = number_of(calls.writev, fd, views, offset)
    except MemoryError:
        put = _NO_MEMORY
    if put != size:
        return put, -errno.ECANCELED
    # No memory from here on is no -ECANCELED: a sync that has begun is not asked for again.
    return put, number_of(_sync, calls, fd)


def _sync(calls: PosixCalls, fd: int) -> int:
    calls.sync(fd)
    return 0


def _grow(lock: threading.Lock, fd: int, size: int) -> int:
    # One at a time: truncating back after a failure must not undo another's success.
    with lock:
        grow_file(fd, size)
    return 0


def _count_read(counters: IoCounters, result: int) -> None:
    counters.bytes_read += max(result, 0)


def _count_write(counters: IoCounters, result: int) -> None:
    counters.bytes_written += max(result, 0)


def _count_write_then_sync(counters: IoCounters, result: tuple[int, int]) -> None:
    put, synced = result
    counters.bytes_written += max(put, 0)
    if synced != -errno.ECANCELED:
        counters.syncs += 1
        counters.linked_syncs += 1


def _count_nothing(_counters: IoCounters, _result: int) -> None:
    """Count nothing: syncs are counted when they are asked for."""
