"""Whole transfers out of possibly short ones, once for all engines.

An engine answers with what the kernel said: a short count, EINTR, EAGAIN, a cancelled link.
Here that becomes "all of it" or an error.  Three rules decide:

* **A transfer goes on from the last 4096-byte boundary it passed.**  With O_DIRECT an unaligned
  remainder is ``EINVAL``; moving a part of a block twice does no harm, because nobody else
  looks at a frame that is being moved.
* **Progress may be slow, but not absent**: after ``RETRIES_MAX`` answers in a row without any,
  the last answer is the error.  ``ECANCELED`` is such an answer: io_uring found no thread for a
  request, which therefore never began, or a link was cut.
* **A failed fsync is final.**  ext4 and xfs report a lost write once and success the next time,
  so no fsync is ever asked again for the same data, not even after EINTR.  Only a linked fsync
  that its short write cancelled is asked for anew, because it never began.  Of an ``ECANCELED`` that
  stands alone nobody can say whether it is the kernel's or the file system's own.

The coroutines await nothing but completions, so whoever resumes on ``add_done_callback`` may
drive them.  A task may, too: if it is cancelled, ``CancelledError`` comes out when the
operation in flight has ended, and the rest of the transfer is not begun.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator, Sequence

from uringblob.buffers.iobuf import IoBuffer
from uringblob.completion import Completion, persist
from uringblob.engines.base import Engine
from uringblob.errors import BlobStoreIOError, check_rc, errno_name
from uringblob.limits import thread_limits
from uringblob.units import BUF_ALIGN

#: What one gather may hold: the kernel's UIO_MAXIOV pieces, and less than 2 GiB.
GATHER_PIECES_MAX = 1024
GATHER_BYTES_MAX = 2 * 1024**3 - 2 * 1024**2

#: Answers in a row that move nothing before a transfer gives up.
RETRIES_MAX = 10

#: The system lacks something that others may be about to give back: memory, or a thread.
_COMES_BACK = frozenset({-errno.EAGAIN, -errno.ECANCELED})

#: After the n-th of these in a row the loop has n times this many seconds for others.
AGAIN_PAUSE_SECONDS = 0.0001


class SyncFailed(BlobStoreIOError):
    """An fsync failed, whatever its errno: what the medium holds is unknown from now on."""


async def read_whole(
    engine: Engine, offset: int, frames: Sequence[IoBuffer], what: object, answer: int | None = None
) -> int:
    """Fill ``frames``, in order, from ``offset`` on; return how many bytes were read.

    That is less than the frames hold only where the file ends.

    :param what: says, as a string, in an error's message what was read, from which file and
        offset; only then is it made one.
    :param answer: what the engine said to the first request, if the caller has made it: for a
        single frame only.
    :raises BlobStoreIOError: the system refused, or made no progress before the end of the file.
    """
    if len(frames) == 1 and (size := frames[0].size) <= GATHER_BYTES_MAX:
        got = await engine.read(offset, frames) if answer is None else answer
        if got == size:
            return got
        return await _finish_read(engine, offset, frames, size, got, what)
    done = 0
    for gather, size in _gathers(frames):
        got = await engine.read(offset + done, gather)
        if got != size:
            got = await _finish_read(engine, offset + done, gather, size, got, what)
        done += got
        if got < size:
            break
    return done


def one_request(count: int, size_bytes: int) -> bool:
    """Whether :func:`write_whole` makes one request for so many frames of so many bytes together."""
    return 0 < count <= GATHER_PIECES_MAX and size_bytes <= GATHER_BYTES_MAX


async def write_whole(
    engine: Engine, offset: int, frames: Sequence[IoBuffer], what: object, answer: int | None = None
) -> None:
    """Write all of ``frames``, in order, from ``offset`` on.

    More than one gather goes out one after the other.

    :param answer: what the engine said to the one request for them, if the caller has made it.
    :raises BlobStoreIOError: the system refused; any part may have been written.
    """
    for gather, size in _gathers(frames):
        put = await engine.write(offset, gather) if answer is None else answer
        if put != size:
            await _finish_write(engine, offset, gather, size, put, what)
        offset += size


async def write_whole_then_sync(
    engine: Engine, offset: int, frames: Sequence[IoBuffer], what: object
) -> bool:
    """Write all of ``frames`` and make them durable.

    Returns true if one submission did both: one gathered write linked to one fdatasync.
    A short write cancels that fdatasync; then the rest is written and synced separately.
    The success of an fdatasync that began before the whole write was done counts for nothing.

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
    if put == size:
        _check_sync(synced, what, "fdatasync after ")
        return True
    if synced != -errno.ECANCELED:
        # It ran although the chain was broken.  Its success proves nothing, but a failure is one.
        _check_sync(synced, what, "fdatasync after ")
    await _finish_write(engine, offset, gather, size, put, what)
    await sync(engine, f"fdatasync after {what}")
    return False


async def sync(engine: Engine, what: object) -> None:
    """Make every write whose completion was resolved before this call durable.

    :raises SyncFailed: the fsync failed, with whatever errno.  It is never tried again.
    """
    _check_sync(await engine.sync(), what)


async def grow(engine: Engine, size: int, what: object) -> None:
    """Make the file ``size`` bytes long, with room for all of them where that can be had.

    :raises BlobStoreIOError: the system refused; the file is as long as before.
    """
    idle = 0
    while (rc := await engine.grow(size)) < 0:
        idle += 1
        await _pause_or_raise(rc, idle, what)


def _check_sync(rc: int, what: object, head: str = "") -> None:
    if rc < 0:  # only then is ``what`` made text
        raise SyncFailed(-rc, f"{head}{what}: {errno_name(-rc)}", applied=None)


async def _finish_read(
    engine: Engine, offset: int, frames: Sequence[IoBuffer], size: int, got: int, what: object
) -> int:
    """Bring a read whose first answer was ``got`` to its end, or to the end of the file."""
    start = done = idle = 0
    while True:
        if got > 0 and start + got > done:
            done, idle = start + got, 0
            if done >= size:
                return size
        else:
            idle += 1
            # Without progress: at the end of the file that is the answer, elsewhere a hiccup.
            if got >= 0 and offset + done >= check_rc(engine.file_size(), f"{what}: the file's length"):
                return done
            await _pause_or_raise(got, idle, what)
        start = done - done % BUF_ALIGN
        got = await engine.read(offset + start, _without(frames, start))


async def _finish_write(
    engine: Engine, offset: int, frames: Sequence[IoBuffer], size: int, put: int, what: object
) -> None:
    """Bring a write whose first answer was ``put`` to its end."""
    start = done = idle = 0
    while True:
        if put == 0:
            check_rc(-errno.EIO, f"{what}: the system wrote no byte")
        if put > 0 and start + put > done:
            done, idle = start + put, 0
            if done >= size:
                return
        else:
            idle += 1
            await _pause_or_raise(put, idle, what)
        start = done - done % BUF_ALIGN
        put = await engine.write(offset + start, _without(frames, start))


async def _pause_or_raise(rc: int, idle: int, what: object) -> None:
    """After the ``idle``-th answer in a row without progress: return to try again, or raise."""
    if idle >= RETRIES_MAX:
        head = f"{what}: no progress in {idle} attempts"
        if rc == -errno.ECANCELED:
            head = f"{head}: the kernel has no thread for it, and {thread_limits()}"
        check_rc(rc if rc < 0 else -errno.EIO, head)
    if rc in _COMES_BACK:
        loop = asyncio.get_running_loop()
        pause: Completion[None] = Completion(loop=loop)
        persist(loop.call_later, idle * AGAIN_PAUSE_SECONDS, pause.resolve, None)
        await pause
    elif rc != -errno.EINTR:
        check_rc(rc, what)


def _gathers(frames: Sequence[IoBuffer]) -> Iterator[tuple[Sequence[IoBuffer], int]]:
    """Cut ``frames`` into gathers that one request may hold, each with its size in bytes."""
    size = sum(frame.size for frame in frames)
    if len(frames) <= GATHER_PIECES_MAX and size <= GATHER_BYTES_MAX:
        if frames:
            yield frames, size
        return
    gather: list[IoBuffer] = []
    size = 0
    for frame in frames:
        for piece in _pieces(frame):
            if len(gather) == GATHER_PIECES_MAX or size + piece.size > GATHER_BYTES_MAX:
                yield gather, size
                gather, size = [], 0
            gather.append(piece)
            size += piece.size
    yield gather, size


def _pieces(frame: IoBuffer) -> Iterator[IoBuffer]:
    """Cut a frame into pieces of at most one gather's bytes."""
    if frame.size <= GATHER_BYTES_MAX:
        yield frame
        return
    for start in range(0, frame.size, GATHER_BYTES_MAX):
        yield frame.part(start, min(start + GATHER_BYTES_MAX, frame.size))


def _without(frames: Sequence[IoBuffer], count: int) -> Sequence[IoBuffer]:
    """Return ``frames`` without their first ``count`` bytes."""
    if not count:
        return frames
    rest: list[IoBuffer] = []
    for frame in frames:
        if count >= frame.size:
            count -= frame.size
        else:
            rest.append(frame.part(count, frame.size) if count else frame)
            count = 0
    return rest
