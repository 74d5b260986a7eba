"""One upload: the difference between a moment of the local store and the remote one, as one remote group.

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

#: Bytes of frames that are in memory at once.
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

    Frames go out as they are read; the remote store makes one group of all that is pending when it is flushed.

    :param moment: a snapshot of the local store over the remote store itself.
    :param extra: goes with it, in the same group.
    """

    def __init__(self, moment: View, extra: Sequence[Write]) -> None:
        self._moment = moment
        self._extra = list(extra)
        self.frames = 0  #: that were sent
        self.reads = 0  #: of the local store
        self.groups = 0  #: groups that were made

    async def run(self, guids: Iterable[bytes]) -> None:
        """Upload what differs of ``guids``; nothing of it is durable there before all of it is.

        What an earlier upload that failed has left pending is compared like the rest, and may be all.
        """
        remote = self._moment.remote
        writes, deletes = await difference(self._moment, guids)
        if not (writes or deletes or remote.needs_flush()):
            return
        waiting = iter(writes)
        at_once = max(1, BYTES_AT_ONCE // self._moment.local.page_size)
        while part := list(itertools.islice(waiting, at_once)):
            with contextlib.ExitStack() as buffers:
                frames = await self._read(part, buffers)
                await remote.write_blobs([(guid, frames[guid], writes[guid]) for guid in part])
            self.frames += len(part)
        await remote.write_blobs(self._extra)
        for guid in deletes:
            await remote.delete_blob(guid)
        await remote.flush()
        self.groups = 1

    async def _read(
        self, guids: Sequence[bytes], buffers: contextlib.ExitStack
    ) -> dict[bytes, AlignedBlobBuf]:
        local = self._moment.local
        frames = {guid: buffers.enter_context(local.alloc_blob_buf_uninit()) for guid in guids}
        for error in await local.read_blobs(list(frames.items())):
            if error is not None:
                raise error
            self.reads += 1
        return frames
