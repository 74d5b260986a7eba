"""A general-purpose io_uring for asyncio, with registered files and buffers.

>>> ring = Ring(64)                        # no loop: completions are waited for with ``wait``
>>> ring.wait(ring.nop())
0
>>> ring.close()
"""

from uringblob.ring.ops import Op, Opcode, SqeFlags, TracedOp
from uringblob.ring.ring import Ring
from uringblob.ring.setup import SetupFlags
from uringblob.ring.stats import RingStats

__all__ = ["Op", "Opcode", "Ring", "RingStats", "SetupFlags", "SqeFlags", "TracedOp"]
