"""Frames that are fetched from the remote store: once for all who wait, and then kept locally."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.buffers.leases import AlignedBlobBuf

#: Keeps a frame in the local store, where it is still the blob's.
Keep = Callable[[bytes, AlignedBlobBuf, BlobStat], Awaitable[None]]


class Fetches:
    """Reads from ``remote``, one at a time for each frame.

    They are known by name and checksum: one that began before its blob was replaced serves only those
    who asked for that frame.
    """

    def __init__(self, local: AsyncBlobStore, remote: AsyncBlobStore, keep: Keep) -> None:
        self._local = local
        self._remote = remote
        self._keep = keep
        self._running: dict[tuple[bytes, int], asyncio.Future[AlignedBlobBuf]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked = self.count = 0

    async def fetch(self, guid: bytes, stat: BlobStat) -> AlignedBlobBuf:
        """Return a buffer with the frame, which others may read too."""
        self.asked += 1
        key = guid, stat.checksum
        arrival = self._running.get(key)
        if arrival is None:
            arrival = self._running[key] = asyncio.get_running_loop().create_future()
            task = asyncio.ensure_future(self._fetch(guid, stat, arrival))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.wait([arrival])  # which cancels nothing when its caller is cancelled
        return arrival.result()

    async def _fetch(self, guid: bytes, stat: BlobStat, arrival: asyncio.Future[AlignedBlobBuf]) -> None:
        try:
            frame = self._local.alloc_blob_buf_uninit()
            await self._remote.read_blob(guid, frame)
            self.count += 1
            arrival.set_result(frame)
            await self._keep(guid, frame, stat)
        except Exception as error:
            if arrival.done():
                raise
            arrival.set_exception(error.with_traceback(None))
            arrival.exception()  # seen: all who wait may have been cancelled
        finally:
            del self._running[guid, stat.checksum]
            arrival.cancel()  # where this task was: nobody waits for ever

    async def idle(self) -> None:
        """Wait until nothing is fetched."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
