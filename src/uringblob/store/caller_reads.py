"""Reads made by their callers' own threads; slot and descriptor stay as they are meanwhile.

Through the store's thread a read takes 380 µs where the system call takes 200 (docs/maintainers/design.md).
Its caller waits anyway, so it makes the call itself.  A read that fails, or comes short, and every other
kind of read goes through the store's loop.

No lock is taken, because a signal handler may read, too.  Two orders replace it:

* a reader *registers*, then checks again that its blob still lies in that slot and that the store does not
  close; the store's thread removes a blob (or ends a snapshot, or marks itself closing), then checks for
  readers.  So at least one of the two sees the other.
* a reader *unregisters*, then checks whether its slot awaits readers; the store's thread marks the slot as
  awaiting them, then checks for readers.

A signal handler's exception is raised to the caller after :meth:`CallerReads.unregister`, which may be
repeated: the handler may have interrupted it.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import os
import sys
import threading

from uringblob import tuning
from uringblob.completion import Completion, persist
from uringblob.store.frame_reads import FrameRead
from uringblob.store.index.slots import SlotTable

#: The read was not made, or what it brought cannot be trusted: read through the loop.
RETRY_ON_LOOP = 0


class AtomicCounter:
    """``next()`` on a C iterator: ``+= 1`` would lose updates across threads and signal handlers."""

    def __init__(self) -> None:
        left = itertools.repeat(None, sys.maxsize)
        self.increment = left.__next__
        self._left = left

    @property
    def value(self) -> int:
        """The number of increments so far."""
        return sys.maxsize - operator.length_hint(self._left)


class CallerRead:
    """A read of ``slot`` in progress in the thread of that identifier."""

    __slots__ = ("slot", "thread")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.thread = threading.get_ident()


class CallerReads:
    """The reads in their callers' threads.  Methods may be called from any thread, but for :meth:`close`."""

    def __init__(self, slots: SlotTable, loop: asyncio.AbstractEventLoop) -> None:
        self._slots = slots
        self._loop = loop
        self._pid = os.getpid()
        self._closing = False
        self.made = AtomicCounter()
        self.whole = AtomicCounter()  #: of those, the ones that moved a whole frame

    @property
    def active(self) -> int:
        """Reads in progress."""
        return len(self._slots.caller_reads)

    @property
    def interrupted(self) -> bool:
        """Whether the calling thread is inside a read: then this is a signal handler that interrupted it."""
        me = threading.get_ident()
        return any(caller.thread == me for caller in list(self._slots.caller_reads))

    def read(self, read: FrameRead) -> int:
        """Return the frame's size, ``RETRY_ON_LOOP``, or the ``-errno`` of the system call."""
        if read.bounced:
            return RETRY_ON_LOOP
        caller = CallerRead(read.slot)
        try:
            try:
                return self._read(read, caller)
            finally:
                self.unregister(caller)
        except BaseException:
            self.unregister(caller)
            raise

    def _read(self, read: FrameRead, caller: CallerRead) -> int:
        reads = read.reads
        if not self.register(caller) or reads.index.find(read.guid) != read.entry:
            return RETRY_ON_LOOP
        self.made.increment()
        got = reads.engine.read_now(read.offset, read.dst)
        if got < 0:
            # If the blob lies elsewhere by now, the error would name the wrong place.
            return got if reads.index.find(read.guid) == read.entry else RETRY_ON_LOOP
        if got != read.dst.size:
            return RETRY_ON_LOOP
        self.whole.increment()
        return got if not reads.verifies or read.matches() else RETRY_ON_LOOP

    def register(self, caller: CallerRead) -> bool:
        """Keep the caller's slot from being reused; False if the store is closing."""
        self._slots.caller_reads[caller] = caller.slot
        return not self._closing

    def unregister(self, caller: CallerRead) -> None:
        """Let the slot be reused; may be repeated."""
        self._slots.caller_reads.pop(caller, None)
        if self._slots.awaits_readers(caller.slot):
            self._notify(caller.slot)

    def _notify(self, slot: int) -> None:
        if os.getpid() != self._pid:
            return  # a signal handler forked: the loop is the parent's
        try:
            self._loop.call_soon_threadsafe(self._slots.try_free, slot)
        except RuntimeError:
            # A closed loop has waited for every reader that was registered in time.  Any other is a signal
            # handler's, or a RecursionError, and the loop was not notified.
            if not self._loop.is_closed():
                raise

    async def close(self) -> None:
        """Register no read any more, and wait for those in progress: they use the descriptor."""
        self._closing = True
        while self._slots.caller_reads:
            pause: Completion[None] = Completion(loop=self._loop)
            persist(self._loop.call_later, tuning.READERS_POLL_S, pause.resolve, None)
            await pause
