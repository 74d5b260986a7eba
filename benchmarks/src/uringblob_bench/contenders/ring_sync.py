"""Ways to make a batch of frames durable on a bare ring; all go to one run of the file."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence

from uringblob.ring import Op, Ring, SqeFlags, ops
from uringblob.slab import IoBuffer

FIXED = SqeFlags.FIXED_FILE
#: ``RWF_DSYNC`` of ``linux/fs.h``.
RWF_DSYNC = 2

Strategy = Callable[[Ring, Sequence[IoBuffer], int], Awaitable[None]]


def _writes(frames: Sequence[IoBuffer], offset: int, op_flags: int = 0, flags: int = FIXED) -> list[Op]:
    made = []
    for number, frame in enumerate(frames):
        at = offset + number * frame.size
        op = ops.write_fixed if frame.buf_index >= 0 else ops.write
        made.append(op(0, at, frame, flags=flags)._replace(op_flags=op_flags))
    return made


def _sync(flags: int = FIXED) -> Op:
    return ops.fsync(0, data_only=True, flags=flags)


async def settled(completions: Sequence[Awaitable[int]], sizes: Sequence[int]) -> None:
    """Wait for all of these; each must move so many bytes."""
    for completion, size in zip(completions, sizes, strict=True):
        got = await completion
        if got != size:
            raise OSError(-got if got < 0 else errno.EIO, f"the kernel answered {got} instead of {size}")


async def two_phase(ring: Ring, frames: Sequence[IoBuffer], offset: int) -> None:
    """Writes; wait for all of them; fdatasync; wait."""
    await settled(ring.submit(_writes(frames, offset)), [frame.size for frame in frames])
    await settled(ring.submit([_sync()]), [0])


async def gathered(ring: Ring, frames: Sequence[IoBuffer], offset: int) -> None:
    """One write of the whole contiguous run, linked to one fdatasync."""
    size = sum(frame.size for frame in frames)
    whole = IoBuffer(frames[0].view, frames[0].address, size, frames[0].buf_index)
    await settled(ring.chain(*_writes([whole], offset), _sync()), [size, 0])


async def linked(ring: Ring, frames: Sequence[IoBuffer], offset: int) -> None:
    """A chain: each write linked to the next, the last to the fdatasync."""
    sizes = [*(frame.size for frame in frames), 0]
    await settled(ring.chain(*_writes(frames, offset), _sync()), sizes)


async def drained(ring: Ring, frames: Sequence[IoBuffer], offset: int) -> None:
    """Writes side by side, then an fdatasync with IO_DRAIN, in one submission."""
    sizes = [*(frame.size for frame in frames), 0]
    drain = _sync(FIXED | SqeFlags.IO_DRAIN)
    await settled(ring.submit([*_writes(frames, offset), drain]), sizes)


async def dsync(ring: Ring, frames: Sequence[IoBuffer], offset: int) -> None:
    """Writes side by side, each with RWF_DSYNC, and no fdatasync."""
    await settled(ring.submit(_writes(frames, offset, RWF_DSYNC)), [frame.size for frame in frames])


STRATEGIES: dict[str, Strategy] = {
    "two-phase": two_phase,
    "gathered": gathered,
    "linked": linked,
    "drained": drained,
    "RWF_DSYNC": dsync,
}
