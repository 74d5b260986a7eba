"""What both traits have in common: the methods that neither wait nor do I/O."""

from __future__ import annotations

import inspect

from uringblob.api.stats import StoreStats
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.errors import StoreClosed
from uringblob.units import PAGE_SIZE


class AnyBlobStore:
    """Base of :class:`BlobStore` and :class:`AsyncBlobStore`."""

    _closed = False

    @property
    def page_size(self) -> int:
        """The frame size in bytes, the same for the store's whole life."""
        return PAGE_SIZE

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._closed

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        """Return a zero-filled frame: from the registered pool when it has room, else the heap."""
        self._check_open()
        return AlignedBlobBuf.zeroed(self.page_size)

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        """Return a frame with undefined contents, to be filled by the caller.

        It may hold bytes that this process read or wrote earlier, never those of another one.
        """
        self._check_open()
        return AlignedBlobBuf.uninit(self.page_size)

    def needs_flush(self) -> bool:
        """Return false only if nothing that returned, or failed half-way, still needs a flush.

        Never waits.  The default cannot know and returns true.
        """
        self._check_open()
        return True

    def stats(self) -> StoreStats:
        """Return a frozen snapshot of the store's counters; works after closing too."""
        return StoreStats(page_size=self.page_size)

    def _check_open(self) -> None:
        if self.closed:
            raise StoreClosed(f"{self!r} is closed: open it again")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} page_size={self.page_size} {state}>"


def take_documentation(target: type, source: type) -> None:
    """Give the methods of ``target`` that have no documentation that of their namesakes in ``source``."""
    for name, member in vars(target).items():
        if inspect.isfunction(member) and member.__doc__ is None:
            member.__doc__ = getattr(getattr(source, name, None), "__doc__", None)
