"""Public face of :mod:`uringblob.buffers.slab`: memory in huge pages for buffers of one's own ring."""

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.slab import HUGE_PAGE_SIZE, Slab

__all__ = ["HUGE_PAGE_SIZE", "IoBuffer", "Slab"]
