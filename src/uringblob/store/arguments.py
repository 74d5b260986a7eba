"""Arguments that name many blobs, checked a few at a time.

Every guid and length is checked before anything is done; a hundred thousand of them take 200 ms.
It runs in the caller's task and not in the store's job: the caller's iterators run here, and what they
raise is the caller's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeVar, Union

from uringblob import tuning
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import AlignedBlobBuf, frame_of
from uringblob.buffers.views import (
    BlobBuffer,
    Checksums,
    Write,
    as_pair,
    as_write,
    check_no_single_guid,
    checked_conditions,
    checked_deletes,
)
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.store.core import Core
from uringblob.store.index.changes import Conditions
from uringblob.store.index.shards import FEW, Mapped, Shards

#: What such a step takes of the checksum budget.
STEP_COST = tuning.CHECKED_AT_ONCE * tuning.CHANGE_COST_BYTES

V = TypeVar("V")

#: What a call changes: frames, the metadata of those blobs that have some (``None``: of none), deletions.
Changes = tuple[Mapped[IoBuffer], Union[Mapped[bytes], None], list[bytes]]


async def checked_changes(core: Core, writes: Iterable[Write], deletes: Iterable[GuidLike] = ()) -> Changes:
    """Return what a call writes, the last write of each guid, and what it deletes, each guid once."""
    check_no_single_guid(deletes)
    size, pool = core.page_size, core.file_io.engine.pool
    frames: Mapped[IoBuffer] = {}
    metas: Mapped[bytes] = {}
    try:
        for count, pair in enumerate(writes, 1):
            guid, src, meta = (*pair, b"") if type(pair) is tuple and len(pair) == 2 else as_write(pair)
            key = guid_bytes(guid)
            frames[key] = frame_of(src, size, writable=False, pool=pool)
            if meta or metas:
                metas[key] = meta
            if count % tuning.CHECKED_AT_ONCE == 0:
                frames, metas = _in_shards(frames), _in_shards(metas)
                await core.file_io.checksum_budget.acquire_after(STEP_COST)
        doomed: Mapped[None] = {}
        rest = iter(deletes)
        while some := list(itertools.islice(rest, tuning.CHECKED_AT_ONCE)):
            for key in checked_deletes(some, frames):
                doomed[key] = None
            if len(some) == tuning.CHECKED_AT_ONCE:
                doomed = _in_shards(doomed)
                await core.file_io.checksum_budget.acquire_after(STEP_COST)
        return frames, metas or None, list(doomed)
    except BaseException:
        frames.clear()  # or the error's traceback would keep views of the caller's buffers
        raise


async def conditions_of(core: Core, if_absent: Iterable[GuidLike], if_checksum: Checksums) -> Conditions:
    """Return a commit's conditions."""
    conditions: list[tuple[bytes, int | None]] = []
    for condition in checked_conditions(if_absent, if_checksum):
        conditions.append(condition)
        if len(conditions) % tuning.CHECKED_AT_ONCE == 0:
            await core.file_io.checksum_budget.acquire_after(STEP_COST)
    return conditions


def few_changes(core: Core, writes: Iterable[Write], deletes: Iterable[GuidLike]) -> Changes | None:
    """Do what :func:`checked_changes` does, in one step; ``None`` where that would take more."""
    if not isinstance(writes, (list, tuple)) or len(writes) > tuning.CHECKED_AT_ONCE:
        return None
    if deletes != () and (not isinstance(deletes, (list, tuple)) or len(deletes) > tuning.CHECKED_AT_ONCE):
        return None
    size, pool = core.page_size, core.file_io.engine.pool
    frames: dict[bytes, IoBuffer] = {}
    metas: dict[bytes, bytes] = {}
    frame: IoBuffer | None = None
    try:
        for pair in writes:
            guid, src, meta = (*pair, b"") if type(pair) is tuple and len(pair) == 2 else as_write(pair)
            key = guid if guid.__class__ is BlobGuid else guid_bytes(guid)
            frame = src._fixed if src.__class__ is AlignedBlobBuf and src._pool is pool else None
            if frame is None or not pool.registered:
                frame = frame_of(src, size, writable=False, pool=pool)
            frames[key] = frame
            if meta or metas:
                metas[key] = meta  # of a repeated guid, the last write's
        return frames, metas or None, checked_deletes(deletes, frames) if deletes else []
    except BaseException:
        frames.clear()  # or the error's traceback would keep views of the caller's buffers
        frame = None
        raise


def _in_shards(found: Mapped[V]) -> Mapped[V]:
    """Return ``found``; as :class:`Shards` if it is so large that a plain dict would take long to grow."""
    return Shards.of(found) if len(found) > FEW and isinstance(found, dict) else found


async def checked_reads(
    core: Core, reads: Iterable[tuple[GuidLike, BlobBuffer]]
) -> list[tuple[bytes, IoBuffer]]:
    """Return the guids that a call reads, each with the memory to fill."""
    size, pool = core.page_size, core.file_io.engine.pool
    checked: list[tuple[bytes, IoBuffer]] = []
    try:
        for guid, dst in map(as_pair, reads):
            checked.append((guid_bytes(guid), frame_of(dst, size, writable=True, pool=pool)))
            if len(checked) % tuning.CHECKED_AT_ONCE == 0:
                await core.file_io.checksum_budget.acquire_after(STEP_COST)
    except BaseException:
        checked.clear()
        raise
    return checked
