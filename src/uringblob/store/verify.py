"""Reading everything once: every frame, both superblocks, the whole log."""

from __future__ import annotations

import collections
import errno
from collections.abc import Coroutine

from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.errors import BlobStoreError, BlobStoreIOError, StoreCorrupt, errno_name
from uringblob.guid import BlobGuid
from uringblob.store.core import Core
from uringblob.store.format import (
    BLOCK_SIZE,
    SUPERBLOCK_OFFSETS,
    BlockType,
    Segment,
    decode_superblock,
    entry_checksum,
)
from uringblob.store.io.checksum_budget import JOB
from uringblob.store.io.job import Job, settle
from uringblob.store.log.reader import LogReader

_FRAMES_AT_ONCE = 8


async def verify_core(core: Core, progress: Progress | None) -> VerifyReport:
    """Check every checksum; goes on past what is bad.  An exception from ``progress`` ends it."""
    waiting: list[bytes] = []
    await core.list_names(waiting.extend)
    total = len(waiting)
    bad: list[tuple[BlobGuid, BlobStoreError]] = []
    checked = good_bytes = 0
    under_way: collections.deque[tuple[bytes, Job[bool]]] = collections.deque()
    try:
        while waiting or under_way:
            while waiting and len(under_way) < _FRAMES_AT_ONCE:
                guid = waiting.pop()
                under_way.append((guid, core.medium.start(_check_frame(core, guid))))
            guid, job = under_way.popleft()
            try:
                checked += 1
                good_bytes += core.page_size * await job
            except BlobStoreError as error:
                bad.append((BlobGuid(guid), error.with_traceback(None)))
            if progress is not None:
                progress(checked, total)
    except GeneratorExit:
        under_way.clear()  # the store was dropped, not closed: nothing may be awaited any more
        raise
    finally:
        await settle([job for _, job in under_way])
    return VerifyReport(
        bad=tuple(bad),
        metadata_errors=tuple(await _check_metadata(core)),
        blobs_checked=checked,
        bytes_checked=good_bytes,
    )


async def _check_frame(core: Core, guid: bytes) -> bool:
    """Check one frame, whatever ``verify`` says; false if the blob is gone by now."""
    pool = core.medium.engine.pool
    lease = pool.lease()
    frame = lease._frame(pool)
    entry = core.manifest.find(guid)
    if entry is None:
        return False
    await core.read_entry(guid, entry, frame)
    await core.medium.pace.turn(JOB)
    if await core.medium.pace.checksum(frame.view) != entry_checksum(entry):
        raise core.corrupt(guid, entry, "its checksum does not match")
    return True


async def _check_metadata(core: Core) -> list[BlobStoreError]:
    core.upkeep.hold()
    try:
        await core.upkeep.wait()
        errors: list[BlobStoreError] = []
        for offset in SUPERBLOCK_OFFSETS:
            await _note_error(errors, _check_superblock(core, offset), core)
        await _note_error(errors, _check_log(core), core)
        return errors
    finally:
        core.upkeep.unhold()


async def _note_error(errors: list[BlobStoreError], check: Coroutine[object, None, None], core: Core) -> None:
    """Run ``check``; what it finds, or cannot read, is an entry of the report, and the next check goes on."""
    try:
        await check
    except BlobStoreError as error:
        errors.append(error.with_traceback(None))
    except OSError as error:  # of fstat, on a file system that has died
        number = error.errno or errno.EIO
        errors.append(BlobStoreIOError(number, f"verifying {core.file.path}: {errno_name(number)}"))


async def _check_superblock(core: Core, offset: int) -> None:
    block = await core.medium.read(offset, BLOCK_SIZE, "verifying a superblock")
    superblock = decode_superblock(block, offset)
    if superblock is None:
        text = f"{core.file.path}: the superblock at offset {offset} is damaged: open the store to write, "
        raise StoreCorrupt(text + "which makes it anew from the other one", offset)
    if superblock.store_id != core.superblocks.current.store_id:
        text = (
            f"{core.file.path}: the superblock at offset {offset} is another store's: restore it from a copy"
        )
        raise StoreCorrupt(text, offset)


async def _check_log(core: Core) -> None:
    """Read the log up to the last group that was durable when this began."""
    log = core.queue.log
    last = log.seq
    head = log.segments[0]
    reader = LogReader(
        core.medium,
        log.store_id,
        log.log_id,
        core.page_size,
        Segment(head.slot, head.slots),
        core.medium.file_size(),
    )
    if not await reader.enter():
        raise _damaged(core, head.slot * core.page_size, 0)
    await reader.snapshot(lambda _block: None)
    carry = await reader.group(None, BlockType.CARRY)
    seq = -1 if carry is None else carry[0][1].seq
    while 0 <= seq < last and await reader.group(seq + 1, BlockType.GROUP) is not None:
        seq += 1
    if seq < last:
        raise _damaged(core, reader.offset_of(reader.position), seq + 1)


def _damaged(core: Core, offset: int, seq: int) -> StoreCorrupt:
    text = (
        f"{core.file.path}: the log is damaged (offset {offset}, group {seq}): copy the blobs to a new store"
    )
    return StoreCorrupt(text, offset)
