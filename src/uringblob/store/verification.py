"""Reading everything once: every frame, both superblocks, the whole log."""

from __future__ import annotations

import collections
from collections.abc import Callable

from uringblob.checksums import frame_checksum
from uringblob.errors import BlobStoreError, StoreCorrupt
from uringblob.guid import BlobGuid
from uringblob.report import VerifyReport
from uringblob.store.core import Core
from uringblob.store.format import (
    BLOCK_SIZE,
    SUPERBLOCK_OFFSETS,
    BlockType,
    Segment,
    decode_superblock,
    entry_checksum,
)
from uringblob.store.job import Job, settle
from uringblob.store.log_reader import LogReader

_FRAMES_AT_ONCE = 8

Progress = Callable[[int, int], object]


async def verify_core(core: Core, progress: Progress | None) -> VerifyReport:
    """Check every checksum; goes on past what is bad.  An exception from ``progress`` ends it."""
    guids = core.manifest.guids()
    bad: list[tuple[BlobGuid, BlobStoreError]] = []
    checked = good_bytes = 0
    waiting = collections.deque(guids)
    under_way: collections.deque[tuple[bytes, Job[bool]]] = collections.deque()
    try:
        while waiting or under_way:
            while waiting and len(under_way) < _FRAMES_AT_ONCE:
                guid = waiting.popleft()
                under_way.append((guid, core.medium.start(_check_frame(core, guid))))
            guid, job = under_way.popleft()
            try:
                checked += 1
                good_bytes += core.page_size * await job
            except BlobStoreError as error:
                bad.append((BlobGuid(guid), error.with_traceback(None)))
            if progress is not None:
                progress(checked, len(guids))
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
    if frame_checksum(frame.view) != entry_checksum(entry):
        raise core.corrupt(guid, entry, "its checksum does not match")
    return True


async def _check_metadata(core: Core) -> list[BlobStoreError]:
    core.upkeep.hold()
    try:
        await core.upkeep.wait()
        errors: list[BlobStoreError] = []
        for offset in SUPERBLOCK_OFFSETS:
            block = await core.medium.read(offset, BLOCK_SIZE, "verifying a superblock")
            if decode_superblock(block, offset) is None:
                errors.append(StoreCorrupt(f"{core.file.path}: the superblock at offset {offset} is damaged"))
        try:
            await _check_log(core)
        except BlobStoreError as error:
            errors.append(error)
        return errors
    finally:
        core.upkeep.unhold()


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
    return StoreCorrupt(
        f"{core.file.path}: the log is damaged (offset {offset}, group {seq}): copy the blobs to a new store"
    )
