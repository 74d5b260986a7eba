"""The engine for everywhere: a few threads over ``preadv``, ``pwritev`` and ``fdatasync``.

A request is put on a queue, some thread takes it, makes the call and posts the result to a
mailbox; the loop empties the mailbox.

No lock is held where a signal handler or finalizer could want it again: ``SimpleQueue`` is
written in C and may be re-entered.  The threads know the mailbox but not the
engine, so an engine that is forgotten can be collected, and its end sends them home.
They are daemons: at interpreter exit they wait for nothing and nobody waits for them; a write
that exit cuts short was never acknowledged.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from uringblob.completion import Completion
from uringblob.engines.base import IoCounters
from uringblob.engines.mailbox import Count, Mailbox
from uringblob.engines.posix_calls import PosixCalls, grow_file, pick_calls, read_now
from uringblob.engines.write_runs import Part, WriteRun
from uringblob.frames import Frame
from uringblob.owner import Owner
from uringblob.pool import BufferPool

#: Enough to keep a solid-state drive busy; each blocks in one call at a time.
THREADS_MAX = 8

#: What a thread does: the call with its arguments; whom its result resolves, and what it counts.
_Call = tuple["Completion[Any]", Count, Callable[..., Any], tuple[Any, ...]]
_Job = _Call | WriteRun


class PreadEngine(Owner):
    """Positional I/O on one descriptor by a small thread pool; see :class:`.base.Engine`.

    The descriptor is the caller's and stays open.  All methods belong to the loop's thread,
    except :meth:`read_now` and :meth:`abandon`.  Threads are started when first needed, at most
    ``THREADS_MAX``.
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
        self._fd = fd
        self._calls = pick_calls()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._run: WriteRun | None = None  # the newest, to which the next write may belong
        self._mailbox = Mailbox(loop, self.counters)
        self._threads: list[threading.Thread] = []
        self._grow_lock = threading.Lock()  # taken by worker threads only
        self._open = True

    @property
    def in_flight(self) -> int:
        """Operations whose completion is not resolved yet, queued ones included."""
        return len(self._mailbox.pending)

    def read(self, offset: int, frames: Sequence[Frame]) -> Completion[int]:
        """Fill ``frames``, in order, from ``offset`` on; yields bytes read (0: end of file)."""
        self.counters.reads += 1
        return self._ask(_count_read, self._calls.readv, self._fd, _views(frames), offset)

    def read_each(self, reads: Sequence[tuple[int, Frame]], answers: list[Completion[int]]) -> None:
        """Fill each frame from its own offset on; each one's completion goes into ``answers``."""
        for offset, frame in reads:
            answers.append(self.read(offset, (frame,)))

    def read_now(self, offset: int, frame: Frame) -> int:
        """Fill ``frame`` in the calling thread, which may be any; bytes read or ``-errno``."""
        return read_now(self._calls, self._fd, offset, frame.view)

    def write(self, offset: int, frames: Sequence[Frame]) -> Completion[int]:
        """Write ``frames``, in order, from ``offset`` on; yields bytes written."""
        self.counters.writes += 1
        completion = self._new_completion()
        part = Part(completion, offset, _views(frames), sum([frame.size for frame in frames]))
        run = self._run
        if run is None or not run.add(part) or run.missed(part):
            self._queue_run(part)
        return self._promised(completion)

    def _queue_run(self, part: Part) -> None:
        run = WriteRun(part, functools.partial(_write, self._calls, self._fd))
        self._jobs.put(run)
        self._run = run  # last: nothing may be added to a run that no thread will come to

    def write_then_sync(self, offset: int, frames: Sequence[Frame]) -> Completion[tuple[int, int]]:
        """Write, and if that was whole, sync: one job; else ``-ECANCELED`` instead of the sync."""
        self.counters.writes += 1
        size = sum(frame.size for frame in frames)
        return self._ask(
            _count_write_then_sync, _write_then_sync, self._calls, self._fd, _views(frames), offset, size
        )

    def sync(self) -> Completion[int]:
        """fdatasync (on macOS: ``F_FULLFSYNC``); yields 0."""
        self.counters.syncs += 1
        return self._ask(_count_nothing, _sync, self._calls, self._fd)

    def grow(self, size: int) -> Completion[int]:
        """Allocate the file up to ``size`` bytes; yields 0.  After a failure nothing has changed."""
        return self._ask(_count_nothing, _grow, self._grow_lock, self._fd, size)

    def file_size(self) -> int:
        """The file's length in bytes, now."""
        return os.fstat(self._fd).st_size

    async def close(self) -> None:
        """Wait for everything in flight, then end the threads.  The descriptor stays open."""
        self._open = False
        try:
            await self._mailbox.wait_empty()
        finally:
            threads = self._dismiss()
            for thread in threads:
                thread.join()

    def abandon(self) -> None:
        """Tell the threads to go when they are done, and wait for none (a fork has none)."""
        self._open = False
        self._dismiss()

    def __del__(self) -> None:
        if hasattr(self, "_threads"):  # else it was never wholly made
            self._dismiss()

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return (
            f"<PreadEngine {state} fd={self._fd} direct_io={self.direct_io} "
            f"in_flight={self.in_flight} threads={len(self._threads)}>"
        )

    def _ask(self, count: Count, call: Callable[..., Any], *args: Any) -> Completion[Any]:
        completion = self._new_completion()
        self._jobs.put((completion, count, call, args))
        return self._promised(completion)

    def _promised(self, completion: Completion[Any]) -> Completion[Any]:
        """Note that somebody will wait for what is queued already.

        First the queue, then the list of pending ones: a signal handler that raises in between leaves
        a job that ends on its own, and not a promise that nobody keeps.
        """
        self._mailbox.pending.add(completion)
        if not self._threads:
            self._work_here()
        return completion

    def _new_completion(self) -> Completion[Any]:
        if not self._open:
            raise RuntimeError("this engine is closed")
        if len(self._threads) < THREADS_MAX and len(self._threads) <= self.in_flight:
            self._start_thread()
        return Completion(loop=self._mailbox.loop)

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=_live, args=(self._jobs, self._mailbox), name="uringblob-pread", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return  # no more threads to be had: those that run, or else the caller, do the work
        self._threads.append(thread)

    def _work_here(self) -> None:
        """Do what is queued in this thread, because there is no other."""
        _work(lambda: None if self._jobs.empty() else self._jobs.get(), self._mailbox)

    def _dismiss(self) -> list[threading.Thread]:
        threads, self._threads = self._threads, []
        self._jobs.put(None)  # each thread hands it on, also one that a signal kept off the list
        return threads


def _live(jobs: queue.SimpleQueue[_Job | None], mailbox: Mailbox) -> None:
    """A thread's life: do jobs until a ``None`` comes, and hand that on to the other threads."""
    _work(jobs.get, mailbox)
    jobs.put(None)


def _work(take: Callable[[], _Job | None], mailbox: Mailbox) -> None:
    while (job := take()) is not None:
        if isinstance(job, WriteRun):
            _work_off(job, mailbox)
            continue
        completion, count, call, args = job
        result = _result_of(call, args)
        # The frames are let go before the result is seen, so that they can be released at once.
        del job, args
        mailbox.post(completion, count, result)
        del completion, result


def _work_off(run: WriteRun, mailbox: Mailbox) -> None:
    for completion, result in run.work():  # the frames are let go before the first result is seen
        mailbox.post(completion, _count_write, result)


def _result_of(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Make the call; what it raises is a result too."""
    try:
        return call(*args)
    except OSError as error:
        return _number(error)
    except MemoryError:
        return -errno.ENOMEM
    except BaseException as error:  # noqa: BLE001 - it goes to whoever awaits the completion
        return error


def _views(frames: Sequence[Frame]) -> list[memoryview]:
    return [frame.view for frame in frames]


def _write(calls: PosixCalls, fd: int, views: list[memoryview], offset: int) -> Any:
    result = _result_of(calls.writev, (fd, views, offset))
    if isinstance(result, BaseException):
        # Its traceback knows the callers' frames, and so the views of those who are written beside this one.
        return result.with_traceback(None)
    return result


def _write_then_sync(
    calls: PosixCalls, fd: int, views: list[memoryview], offset: int, size: int
) -> tuple[int, int]:
    try:
        put = calls.writev(fd, views, offset)
    except OSError as error:
        return _number(error), -errno.ECANCELED
    if put != size:
        return put, -errno.ECANCELED
    try:
        return put, _sync(calls, fd)
    except OSError as error:
        return put, _number(error)


def _sync(calls: PosixCalls, fd: int) -> int:
    calls.sync(fd)
    return 0


def _grow(lock: threading.Lock, fd: int, size: int) -> int:
    # One at a time: truncating back after a failure must not undo another's success.
    with lock:
        grow_file(fd, size)
    return 0


def _number(error: OSError) -> int:
    return -(error.errno or errno.EIO)


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
