"""Who leases which frame of a store's slab.

The pool has no lock, because it must work where a lock would deadlock: in finalizers, which
give frames back, and in signal handlers, which may interrupt a lease and lease themselves.
It is one dict, from a leased frame's index to the token of its lease, and every change is one
dict operation, which CPython runs as a whole:

* to lease, ``setdefault(index, token)``: whoever finds his own token there has the frame;
* to give back, ``pop(index)``, called by the end of the lease's exporter.

So ownership can be looked up at any time, and an exception that a signal handler raises in the
middle of a lease loses no frame.  (A list popped as a stack would: between the pop and the
assignment the index is known to nobody.)
"""

from __future__ import annotations

import ctypes
from itertools import filterfalse
from typing import TYPE_CHECKING, Any

from uringblob.buffers.leases import AlignedBlobBuf, _on_heap, buffer_over
from uringblob.owner import Owner

if TYPE_CHECKING:
    from uringblob.buffers.slab import Slab


class BufferPool(Owner):
    """Frames of one slab for lease, the lowest free one first; then the heap.

    :param page_size: bytes in a frame.
    :param slab: where the frames lie; ``None`` leases from the heap only.
    :param asked: how many frames the user asked for.
    :param buf_index: the index under which the kernel knows the slab, -1 if it does not.
    :param reason: why fewer frames than asked are registered, in words; may be empty.
    :param capacity: lease only the first ``capacity`` frames; default all of the slab.

    Neighbours in time are neighbours in memory as far as possible, because frames leased one
    after the other are then written with one contiguous request.
    Any thread, signal handler or finalizer may call any method.
    """

    def __init__(
        self,
        page_size: int,
        slab: Slab | None,
        *,
        asked: int,
        buf_index: int = -1,
        reason: str = "",
        capacity: int | None = None,
    ) -> None:
        frames = 0 if slab is None else slab.count
        self.page_size = page_size
        self.slab = slab
        self.asked = asked
        self.buf_index = buf_index
        self.reason = reason
        self.capacity = frames if capacity is None else min(capacity, frames)
        self._registered = buf_index >= 0 and self.capacity > 0
        self._owners: dict[int, object] = {}
        self._used: set[int] = set()

    @property
    def registered(self) -> bool:
        """Whether the kernel holds the slab as a fixed buffer, and the store is open."""
        return self._registered

    @property
    def huge(self) -> bool:
        """Whether the slab lies on huge pages."""
        return self.slab is not None and self.slab.huge

    @property
    def leased(self) -> int:
        """Frames of the slab that are in use now: as buffers, views of them, or in flight."""
        return len(self._owners)

    def lease(self) -> AlignedBlobBuf:
        """Return a frame whose contents are whatever was there before.

        :raises MemoryError: the slab is exhausted, and the heap too.
        """
        return self._lease(zero=False)

    def lease_zeroed(self) -> AlignedBlobBuf:
        """Return a zero-filled frame; otherwise as :meth:`lease`."""
        return self._lease(zero=True)

    def retire(self) -> None:
        """Say that the kernel no longer holds the slab; leased buffers stay usable memory."""
        self._registered = False

    def _lease(self, *, zero: bool) -> AlignedBlobBuf:
        slab = self.slab
        while slab is not None and len(self._owners) < self.capacity:
            index = next(filterfalse(self._owners.__contains__, range(self.capacity)), -1)
            if index < 0:
                break
            exporter = self._claim(slab, index)
            if exporter is None:
                continue  # another thread was faster: look again
            address = slab.address + index * self.page_size
            if zero and index in self._used:
                ctypes.memset(address, 0, self.page_size)
            self._used.add(index)
            return buffer_over(exporter, address, self.page_size, pool=self, leased=True)
        return _on_heap(self.page_size, self)

    def _claim(self, slab: Slab, index: int) -> Any:
        """Return the exporter of frame ``index``, or ``None`` if somebody else has it."""
        owners = self._owners
        token = object()
        try:
            if owners.setdefault(index, token) is not token:
                return None
            return slab.exporter(index, owners.pop)
        except BaseException:
            # An exporter that was made has ended by now and has given the frame back.  If none was
            # made, and the frame is ours, nobody else will: then the token is still there.
            if owners.get(index) is token:
                owners.pop(index)
            raise

    def __repr__(self) -> str:
        kind = "registered" if self.registered else "not registered"
        return f"<BufferPool {self.leased} of {self.capacity} frames leased, {self.asked} asked, {kind}>"
