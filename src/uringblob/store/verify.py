"""``verify()``: reads every frame, both superblocks and the whole log, and checks every checksum."""

from __future__ import annotations

import collections
import errno
from collections.abc import Coroutine, Sequence

from uringblob import tuning
from uringblob.api.scrub import Note
from uringblob.errors import BlobStoreError, BlobStoreIOError, StoreCorrupt, errno_name
from uringblob.guid import BlobGuid
from uringblob.store.core import Core
from uringblob.store.format import (
    BLOCK_SIZE,
    SUPERBLOCK_OFFSETS,
    BlockType,
    decode_superblock,
)
from uringblob.store.io.job import Job
from uringblob.store.io.pending_write import WaitOnError
from uringblob.store.log.reader import LogReader

#: Frames that one job checks.
FRAMES_AT_ONCE = 8 * tuning.VERIFIED_AT_ONCE


async def check_frames(core: Core, guids: Sequence[BlobGuid], note: Note) -> None:
    """Check the frames, a few at the same time, and ``note`` each, in order; what it raises ends this."""
    waiting = collections.deque(guids)
    begun: collections.deque[BlobGuid] = collections.deque()
    jobs: collections.deque[Job[None]] = collections.deque()
    async with WaitOnError(jobs):
        while waiting or jobs:
            while waiting and len(jobs) < tuning.VERIFIED_AT_ONCE:
                begun.append(waiting.popleft())
                jobs.append(core.file_io.start(_check_frame(core, begun[-1])))
            guid, job = begun.popleft(), jobs.popleft()
            found: BlobStoreError | None = None
            try:
                await job
            except BlobStoreError as error:
                found = error.with_traceback(None)
            note(guid, found)


async def _check_frame(core: Core, guid: bytes) -> None:
    """Check one frame, also in a store that was opened with ``verify=False``."""
    pool, budget = core.file_io.engine.pool, core.file_io.checksum_budget
    lease = pool.lease()
    read = core.reads.plan(guid, lease._frame(pool))
    await read.fill()
    await budget.acquire(tuning.JOB_COST_BYTES)
    await read.check_in_steps()


async def check_metadata(core: Core) -> list[BlobStoreError]:
    """Check both superblocks and the log; return what is wrong."""
    core.maintenance.pin()
    try:
        await core.maintenance.wait()
        errors: list[BlobStoreError] = []
        for offset in SUPERBLOCK_OFFSETS:
            await note_error(errors, check_superblock(core, offset), core)
        await note_error(errors, _check_log(core), core)
        return errors
    finally:
        core.maintenance.unpin()


async def note_error(errors: list[BlobStoreError], check: Coroutine[object, None, None], core: Core) -> None:
    """Run ``check``; the error that it raises becomes an entry of the report."""
    try:
        await check
    except BlobStoreError as error:
        errors.append(error.with_traceback(None))
    except OSError as error:  # of fstat, on a file system that has died
        number = error.errno or errno.EIO
        errors.append(BlobStoreIOError(number, f"verifying {core.file.path}: {errno_name(number)}"))


async def check_superblock(core: Core, offset: int) -> None:
    """Raise ``StoreCorrupt`` if the superblock at ``offset`` is damaged, or another store's."""
    superblock = decode_superblock(
        await core.file_io.read(offset, BLOCK_SIZE, "verifying a superblock"), offset
    )
    head = f"{core.file.path}: the superblock at offset {offset} is"
    if superblock is None:
        raise StoreCorrupt(
            f"{head} damaged: open the store to write, which makes it anew from the other one", offset
        )
    if superblock.store_id != core.superblocks.current.store_id:
        raise StoreCorrupt(f"{head} another store's: restore it from a copy", offset)


async def _check_log(core: Core) -> None:
    """Read the log up to the last group that was durable when this began."""
    log = core.log
    last = log.seq
    reader = LogReader.of_log(log)
    if not await reader.enter():
        raise _damaged(core, log.offset_of(log.segments[0]), 0)
    await reader.snapshot(lambda _block: None)
    carry = await reader.group(None, BlockType.CARRY)
    seq = -1 if carry is None else carry[0][1].seq
    while 0 <= seq < last and await reader.group(seq + 1, BlockType.GROUP) is not None:
        seq += 1
    if seq < last:
        raise _damaged(core, reader.offset_of(reader.position), seq + 1)


def _damaged(core: Core, offset: int, seq: int) -> StoreCorrupt:
    text = f"{core.file.path}: the log is damaged (offset {offset}, group {seq})"
    return StoreCorrupt(f"{text}: copy the blobs to a new store", offset)
