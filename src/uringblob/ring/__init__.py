"""A general-purpose io_uring for asyncio, with registered files and buffers.

Without a loop, wait for completions::

    ring = Ring(64)
    assert ring.wait(ring.nop()) == 0
    ring.close()

On a loop, await them; many tasks share one submission::

    async def main(path):
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        slab = Slab(512 * 1024, 8)                       # 8 frames in huge pages
        ring = Ring(64, loop=asyncio.get_running_loop())
        ring.register_files([fd])                        # file 0, with SqeFlags.FIXED_FILE
        index = ring.register_slab(slab)
        frame = slab.frame(5, index)
        got = await ring.read_fixed(0, 0, frame, flags=SqeFlags.FIXED_FILE)
        # One submission; the sync begins only when the write has wholly succeeded.
        write, sync = ring.chain(
            ops.write_fixed(0, 0, frame, flags=SqeFlags.FIXED_FILE),
            ops.fsync(0, data_only=True, flags=SqeFlags.FIXED_FILE),
        )
        assert (await write, await sync) == (got, 0)     # numbers: >= 0, or -errno
        await ring.aclose()
        os.close(fd)

``Slab`` is ``uringblob.slab.Slab``; memory of any other kind uses ``read`` and ``readv``.
"""

from uringblob.ring import ops
from uringblob.ring.ops import Op, Opcode, SqeFlags, TracedOp
from uringblob.ring.ring import Ring
from uringblob.ring.setup import SetupFlags
from uringblob.ring.stats import RingStats

__all__ = ["Op", "Opcode", "Ring", "RingStats", "SetupFlags", "SqeFlags", "TracedOp", "ops"]
