"""Reads made by their callers' own threads, and what keeps slot and descriptor for them meanwhile.

A synchronous read that is handed to the store's thread pays two thread switches and the
interpreter lock's way there and back: 380 µs where the system call takes 200, and with eight
threads 0.7 of what the device gives (512 KiB frames, Linux 6.18).  The caller waits anyway, so it
makes the call itself.  Everything else, and every read that does not go as it should, goes
through the store's loop as before.

No lock is taken, because a signal handler may read, too.  Two orders make that right:

* a visitor *enters*, then looks again whether its blob still lives in that slot, or the store
  closes; the store's thread first takes the blob away (or says that it closes), then looks for
  visitors.  So at least one of the two sees the other.
* a visitor *leaves*, then looks whether anybody waits for it; the store's thread first says that
  it waits, then looks for visitors.  Leaving may be done over again: a handler that raises may
  have come between its two halves.

A visitor cannot be kept from leaving: a signal handler that raises strikes the inner loop of
:meth:`CallerRead.see_through`, or the outer one, and is raised to the caller after the end.  Nor can
a stack that has no room left for the calls that leaving takes: then a thread of its own leaves.
"""

from __future__ import annotations

import _thread
import asyncio
import itertools
import operator
import os
import sys
import threading
from typing import TYPE_CHECKING

from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.completion import Completion
from uringblob.store.format import CHECKSUM_BITS, entry_checksum
from uringblob.store.index.slots import SlotTable

if TYPE_CHECKING:
    from uringblob.engines.base import Engine
    from uringblob.store.index.blob_index import BlobIndex

#: The read was not made, or what it brought is not to be trusted: read through the loop.
RETRY_ON_LOOP = 0


class CallerReads:
    """Who reads in a thread of its own now.  Methods belong to the store's thread unless they say otherwise."""

    def __init__(self, slots: SlotTable, loop: asyncio.AbstractEventLoop) -> None:
        self._slots = slots
        self._loop = loop
        self._pid = os.getpid()
        self._closing = False
        self._gone: Completion[None] | None = None
        #: Counts down, in one step, whoever reads in whatever handler: a number would lose some.
        self._unused = itertools.repeat(None, sys.maxsize)
        self._unmoved = itertools.repeat(None, sys.maxsize)

    @property
    def reads(self) -> int:
        """Reads made so far; from any thread."""
        return sys.maxsize - operator.length_hint(self._unused)

    @property
    def whole_reads(self) -> int:
        """Reads that moved a whole frame; from any thread."""
        return sys.maxsize - operator.length_hint(self._unmoved)

    @property
    def inside(self) -> int:
        """Visitors inside now; from any thread."""
        return len(self._slots.visits)

    @property
    def interrupted(self) -> bool:
        """Whether the calling thread is a visitor: a signal handler that struck one asks this."""
        me = threading.get_ident()
        return any(visit.thread == me for visit in list(self._slots.visits))

    def enter(self, visit: CallerRead) -> bool:
        """Keep the visit's slot from being reused, in any thread; False if the store is closing."""
        self._slots.visits[visit] = visit.slot
        return not self._closing

    def leave(self, visit: CallerRead) -> None:
        """Let go of the slot, in any thread; over again as often as needed."""
        self._slots.visits.pop(visit, None)
        if self._closing or self._slots.awaits_readers(visit.slot):
            self._tell(visit.slot)

    def count(self) -> None:
        """Count one read, in its own thread."""
        next(self._unused)

    def count_whole(self) -> None:
        """Count one read that moved a whole frame, in its own thread."""
        next(self._unmoved)

    def _tell(self, slot: int) -> None:
        if os.getpid() != self._pid:
            return  # a signal handler forked: the bell is the parent's
        try:
            self._loop.call_soon_threadsafe(self._left, slot)
        except RuntimeError:
            # A loop that is closed has waited for all visitors: this one was turned away.  Else it
            # is a signal handler's, or the stack is used up, and the bell has not rung.
            if not self._loop.is_closed():
                raise

    def _left(self, slot: int) -> None:
        self._slots.try_free(slot)
        if self._gone is not None and not self._slots.visits:
            self._gone.resolve(None)

    async def close(self) -> None:
        """Admit nobody any more, and wait for those inside: the descriptor is theirs, too."""
        self._closing = True
        if self._slots.visits:
            self._gone = Completion(loop=self._loop)
            await self._gone


class CallerRead:
    """One read of a whole frame, in its caller's thread.

    ``slot`` is where the blob lies, -1 until it is known; ``thread`` the reader's identifier.
    """

    __slots__ = (
        "_answer",
        "_begun",
        "_engine",
        "_frame",
        "_guid",
        "_left",
        "_manifest",
        "_struck",
        "_visitors",
        "slot",
        "thread",
    )

    def __init__(
        self, visitors: CallerReads, manifest: BlobIndex, engine: Engine, guid: bytes, frame: IoBuffer
    ) -> None:
        self._visitors = visitors
        self._manifest = manifest
        self._engine = engine
        self._guid = guid
        self._frame: IoBuffer | None = frame
        self._begun = self._left = False
        self._answer = RETRY_ON_LOOP
        self._struck: BaseException | None = None
        self.slot = -1
        self.thread = threading.get_ident()

    def see_through(self, *, verify: bool) -> int:
        """Return the frame's size, ``RETRY_ON_LOOP``, or the ``-errno`` of the system call.

        What a signal handler raised meanwhile is raised here, when the slot is let go of.
        """
        while not self._left:
            try:
                while not self._left:
                    try:
                        self._step(verify)
                    except BaseException as error:  # noqa: BLE001 - kept, and raised below
                        if isinstance(error, RecursionError) and self._struck is not None:
                            self._leave_elsewhere()
                        self._struck = error if self._struck is None else self._struck
            except BaseException as error:  # noqa: BLE001 - the same, one belt further out
                self._struck = error if self._struck is None else self._struck
        struck, self._struck, self._frame = self._struck, None, None
        if struck is None:
            return self._answer
        try:
            raise struck
        finally:
            del struck  # its traceback knows this frame, and would keep itself

    def _step(self, verify: bool) -> None:
        if not self._begun and self._struck is None:
            self._begun = True
            self._answer = self._read(verify)
        self._visitors.leave(self)
        self._left = True

    def _leave_elsewhere(self) -> None:
        """Leave in another thread: the stack of this one is used up."""
        _thread.start_new_thread(self._visitors.leave, (self,))
        self._left = True

    def _read(self, verify: bool) -> int:
        frame, manifest, engine, visitors = self._frame, self._manifest, self._engine, self._visitors
        entry = manifest.find(self._guid)
        if entry is None or frame is None or frame.address % engine.memory_align:
            return RETRY_ON_LOOP
        self.slot = slot = entry >> CHECKSUM_BITS
        if manifest.slots.beyond_end(slot):
            return RETRY_ON_LOOP
        if not visitors.enter(self) or manifest.find(self._guid) != entry:
            return RETRY_ON_LOOP
        visitors.count()
        got = engine.read_now(slot * frame.size, frame)
        if got < 0:
            # Where the blob lies elsewhere by now, the error would be told of the wrong place.
            return got if manifest.find(self._guid) == entry else RETRY_ON_LOOP
        if got == frame.size:
            visitors.count_whole()
        if got != frame.size or (verify and frame_checksum(frame.view) != entry_checksum(entry)):
            return RETRY_ON_LOOP
        return got
