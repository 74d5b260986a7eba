"""Whole transfers out of possibly short ones, once for all engines.

An engine yields the kernel's result: a short count, EINTR, EAGAIN, a cancelled link.  Here that
becomes a whole transfer or an error:

* **A transfer resumes at the last 4096-byte boundary it passed.**  With O_DIRECT an unaligned
  remainder is ``EINVAL``; moving part of a block twice is harmless, because no one else uses the memory.
* **Progress may be slow, but not absent**: after ``RETRIES_MAX`` results in a row without any, the last
  one is the error.  ``ECANCELED`` counts as such a result: io_uring found no kernel thread for the
  request, which never began, or a link was cut.
* **A failed fsync is final.**  ext4 and xfs report a lost write once and success the next time, so an
  fsync is never repeated for the same data, not even after EINTR.  Only a linked fsync that its short
  write cancelled is issued anew, because it never began.  An ``ECANCELED`` of a lone fsync may be the
  kernel's or the file system's own, so it is final, too.

The coroutines await nothing but completions, so any code that resumes on ``add_done_callback`` may
drive them.  So may a task: if it is cancelled, ``CancelledError`` is raised when the operation in flight
has ended, and the rest of the transfer does not begin.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator, Sequence

from uringblob import tuning
from uringblob.buffers.iobuf import GATHER_BYTES_MAX, GATHER_PIECES_MAX, IoBuffer
from uringblob.completion import Completion, persist
from uringblob.engines.base import Engine
from uringblob.engines.posix_calls import NO_FALLOCATE
from uringblob.errors import BlobStoreIOError, check_rc, errno_name
from uringblob.limits import thread_limits
from uringblob.units import BUF_ALIGN

#: Results in a row without progress before a transfer gives up.
RETRIES_MAX = 10

#: Memory or a thread is short for the moment.
_COMES_BACK = frozenset({-errno.EAGAIN, -errno.ECANCELED})


class SyncFailed(BlobStoreIOError):
    """An fsync failed, with any errno: the contents of the medium are unknown from now on."""


async def read_whole(
    engine: Engine, offset: int, frame: IoBuffer, what: object, answer: int | None = None
) -> int:
    """Fill ``frame`` from ``offset`` on; return the number of bytes read: fewer only at the end of the file.

    :param what: its string names the operation, file and offset in an error's message; it is made
        only then.
    :param answer: the first request's result, if the caller has made it.
    :raises BlobStoreIOError: the system refused, or made no progress before the end of the file.
    """
    got = await engine.read(offset, (frame,)) if answer is None else answer
    if got == frame.size:
        return got
    return await _finish(engine, (frame,), offset, frame.size, got, what, reading=True)


def one_request(count: int, size_bytes: int) -> bool:
    """Whether :func:`write_whole` makes one request for ``count`` frames of ``size_bytes`` together."""
    return 0 < count <= GATHER_PIECES_MAX and size_bytes <= GATHER_BYTES_MAX


async def write_whole(
    engine: Engine, offset: int, frames: Sequence[IoBuffer], what: object, answer: int | None = None
) -> None:
    """Write all of ``frames``, in order, from ``offset`` on; gathers go out one after the other.

    :param answer: the only request's result, if the caller has made it.
    :raises BlobStoreIOError: the system refused; any part may have been written.
    """
    for gather, size in _gathers(frames):
        put = await engine.write(offset, gather) if answer is None else answer
        if put != size:
            await _finish(engine, gather, offset, size, put, what, reading=False)
        offset += size


async def write_whole_then_sync(
    engine: Engine, offset: int, frames: Sequence[IoBuffer], what: object
) -> bool:
    """Write all of ``frames`` and make them durable.

    Returns true if one submission did both: one gathered write linked to one fdatasync.  A short
    write cancels that fdatasync; then the rest is written and synced separately.

    :raises SyncFailed: an fsync failed.
    :raises BlobStoreIOError: a write was refused.
    """
    gathers = list(_gathers(frames))
    if len(gathers) != 1:
        await write_whole(engine, offset, frames, what)
        await sync(engine, f"fdatasync after {what}")
        return False
    gather, size = gathers[0]
    put, synced = await engine.write_then_sync(offset, gather)
    if put == size or synced != -errno.ECANCELED:
        # A sync that ran although the write was short proves nothing by success; its failure counts.
        _check_sync(synced, what, "fdatasync after ")
    if put == size:
        return True
    await _finish(engine, gather, offset, size, put, what, reading=False)
    await sync(engine, f"fdatasync after {what}")
    return False


async def sync(engine: Engine, what: object) -> None:
    """Make every write whose completion was resolved before this call durable.

    :raises SyncFailed: the fsync failed, with any errno.  It is never retried.
    """
    _check_sync(await engine.sync(), what)


async def grow(engine: Engine, size: int, what: object) -> None:
    """Make the file ``size`` bytes long, with blocks for all of them where the file system can.

    :raises BlobStoreIOError: the system refused; the file is as long as before.
    """
    await _until_done(lambda: engine.grow(size), what)


async def cut(engine: Engine, size: int, what: object) -> None:
    """Cut the file down to ``size`` bytes.

    :raises BlobStoreIOError: the system refused.
    """
    await _until_done(lambda: engine.cut(size), what)


async def punch(engine: Engine, offset: int, size: int, what: object) -> bool:
    """Give the blocks of a part of the file back; return false where the file system cannot.

    :raises BlobStoreIOError: the system refused.
    """
    try:
        await _until_done(lambda: engine.punch(offset, size), what)
    except BlobStoreIOError as error:
        if error.errno not in NO_FALLOCATE:
            raise
        return False
    return True


async def allocate(engine: Engine, offset: int, size: int, what: object) -> None:
    """Allocate blocks for a part of the file, if the file system can.

    :raises BlobStoreIOError: the system refused: there is no room.
    """
    await _until_done(lambda: engine.allocate(offset, size), what)


async def _until_done(request: Callable[[], Completion[int]], what: object) -> None:
    idle = 0
    while (rc := await request()) < 0:
        idle += 1
        await _pause_or_raise(rc, idle, what)


def _check_sync(rc: int, what: object, head: str = "") -> None:
    if rc < 0:
        raise SyncFailed(-rc, f"{head}{what}: {errno_name(-rc)}", applied=None)


async def _finish(
    engine: Engine,
    frames: Sequence[IoBuffer],
    offset: int,
    size: int,
    moved: int,
    what: object,
    *,
    reading: bool,
) -> int:
    """Continue a transfer whose first result was ``moved``; return ``size``, or less at the end of the file."""
    start = done = idle = 0
    while True:
        if moved > 0 and start + moved > done:
            done, idle = start + moved, 0
            if done >= size:
                return size
        else:
            idle += 1
            if moved == 0 and not reading:
                check_rc(-errno.EIO, f"{what}: the system wrote no byte")
            # At the end of the file no progress is final; elsewhere it is transient.
            if reading and moved >= 0:
                end = check_rc(engine.file_size(), f"{what}: the file's length")
                if offset + done >= end:
                    return done
            await _pause_or_raise(moved, idle, what)
        start = done - done % BUF_ALIGN
        move = engine.read if reading else engine.write
        moved = await move(offset + start, _without(frames, start))


async def _pause_or_raise(rc: int, idle: int, what: object) -> None:
    """After ``idle`` results in a row without progress: return for another attempt, or raise."""
    if idle >= RETRIES_MAX:
        head = f"{what}: no progress in {idle} attempts"
        if rc == -errno.ECANCELED:
            head = f"{head}: the kernel has no thread for it, and {thread_limits()}"
        check_rc(rc if rc < 0 else -errno.EIO, head)
    if rc in _COMES_BACK:
        loop = asyncio.get_running_loop()
        pause: Completion[None] = Completion(loop=loop)
        persist(loop.call_later, idle * tuning.AGAIN_PAUSE_S, pause.resolve, None)
        await pause
    elif rc != -errno.EINTR:
        check_rc(rc, what)


def _gathers(frames: Sequence[IoBuffer]) -> Iterator[tuple[Sequence[IoBuffer], int]]:
    """Divide ``frames``, each at most ``GATHER_BYTES_MAX``, into gathers of one request, with their sizes."""
    size = sum([frame.size for frame in frames])
    if len(frames) <= GATHER_PIECES_MAX and size <= GATHER_BYTES_MAX:
        if frames:
            yield frames, size
        return
    gather: list[IoBuffer] = []
    size = 0
    for frame in frames:
        if len(gather) == GATHER_PIECES_MAX or size + frame.size > GATHER_BYTES_MAX:
            yield gather, size
            gather, size = [], 0
        gather.append(frame)
        size += frame.size
    yield gather, size


def _without(frames: Sequence[IoBuffer], count: int) -> Sequence[IoBuffer]:
    """Return ``frames`` without their first ``count`` bytes."""
    rest: list[IoBuffer] = []
    for frame in frames:
        if count < frame.size:
            rest.append(frame.part(count, frame.size) if count else frame)
        count = max(count - frame.size, 0)
    return rest
