"""One upload: the difference between a moment of the local store and the remote one, as one remote commit.

What is uploaded is a state that the local store had, whole: all commits up to a moment, and nothing of later
ones.  So commits that wait together are merged, and need not be kept apart in a queue.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import Write
from uringblob.errors import BlobNotFound
from uringblob.tiered.view import View

#: Bytes of frames that are in memory at once.  What is more goes out in parts, and then one flush.
BYTES_AT_ONCE = 64 << 20


async def stat_or_none(store: AsyncBlobStore, guid: bytes) -> BlobStat | None:
    """Return what the store knows of the blob, or ``None``."""
    try:
        return await store.stat_blob(guid)
    except BlobNotFound:
        return None


async def difference(moment: View, guids: Iterable[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Return the metadata of what must be written to the remote store, and what must be deleted there."""
    writes: dict[bytes, bytes] = {}
    deletes: list[bytes] = []
    for guid in guids:
        mine = await stat_or_none(moment.local, guid)
        theirs = await stat_or_none(moment.remote, guid)
        if mine is not None and mine != theirs:
            writes[guid] = mine.meta
        elif mine is None and theirs is not None and await moment.is_deleted(guid):
            deletes.append(guid)  # and without a tombstone it is only evicted
    return writes, deletes


class Upload:
    """Brings the remote store to ``moment``.

    :param moment: a snapshot of the local store over the remote store itself.
    :param extra: goes with it, in the same commit.
    """

    def __init__(self, moment: View, extra: Sequence[Write]) -> None:
        self._moment = moment
        self._extra = list(extra)
        self._remote = moment.remote
        self.frames = 0  #: that were sent
        self.groups = 0  #: remote commits

    async def run(self, guids: Iterable[bytes]) -> None:
        """Upload what differs of ``guids``; nothing of it is durable there before all of it is."""
        writes, deletes = await difference(self._moment, guids)
        # A write that an upload which failed has left pending becomes durable with the next flush alone.
        pending = self._remote.needs_flush()
        if not (writes or deletes or pending):
            return
        frames_at_once = max(1, BYTES_AT_ONCE // self._moment.local.page_size)
        if len(writes) <= frames_at_once and not pending:
            await self._commit(writes, deletes)
        else:
            await self._flush(writes, deletes, frames_at_once)
        self.frames += len(writes)
        self.groups += 1

    async def _commit(self, writes: dict[bytes, bytes], deletes: list[bytes]) -> None:
        with contextlib.ExitStack() as buffers:
            frames = await self._read(list(writes), buffers)
            await self._remote.commit(
                [*((guid, frames[guid], meta) for guid, meta in writes.items()), *self._extra], deletes
            )

    async def _flush(self, writes: dict[bytes, bytes], deletes: list[bytes], frames_at_once: int) -> None:
        """Do the same with bounded memory: a remote store makes one group of all that is pending."""
        waiting = iter(writes)
        while part := list(itertools.islice(waiting, frames_at_once)):
            with contextlib.ExitStack() as buffers:
                frames = await self._read(part, buffers)
                await self._remote.write_blobs([(guid, frames[guid], writes[guid]) for guid in part])
        await self._remote.write_blobs(self._extra)
        for guid in deletes:
            await self._remote.delete_blob(guid)
        await self._remote.flush()

    async def _read(
        self, guids: Sequence[bytes], buffers: contextlib.ExitStack
    ) -> dict[bytes, AlignedBlobBuf]:
        local = self._moment.local
        frames = {guid: buffers.enter_context(local.alloc_blob_buf_uninit()) for guid in guids}
        for error in await local.read_blobs(list(frames.items())):
            if error is not None:
                raise error
        return frames
