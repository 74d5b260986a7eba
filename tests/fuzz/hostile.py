"""What a store may make of hostile bytes: a named error, or a store that works.

Bounded: no read is longer than a frame or the log's read-ahead, and the number of requests is in
proportion to the bytes that are really there, not to the length that the file claims.
"""

from __future__ import annotations

import contextlib

from sim.lives import PAGE, forget, small_log
from sim.victim import Victim
from uringblob.errors import BlobCorrupt, BlobStoreError
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

REQUESTS_MAX = 20_000
READ_BYTES_MAX = 16 << 20
#: Blobs read one by one; verify() reads all of them anyway.
LOOKS = 20


class WatchedDisk(SimDisk):
    """Counts what an opener asks for."""

    def read(self, offset: int, size: int) -> bytes:
        """Read, if that is not too much."""
        assert size <= READ_BYTES_MAX, f"a read of {size} bytes"
        assert self.requests < REQUESTS_MAX, f"more than {REQUESTS_MAX} requests"
        return super().read(offset, size)


def victims_log():
    """Within the block the log is as small as a victim's; see :func:`judge`."""
    return small_log(segment_bytes=8 * PAGE)


def victims() -> list[Victim]:
    """Return stores of several shapes: fresh or compacted, closed or not."""
    with victims_log():
        return [Victim(compactions=n, closed=closed) for n in (0, 1, 2) for closed in (True, False)]


def judge(image: Image, *, read_only: bool, deep: bool) -> str:
    """Open, list, read and verify what is in ``image``; return what came of it.

    Asked within :func:`victims_log`, which is entered once for many images: it takes a fifth of the time.
    ``deep``: also change it, close it and open it again, if it opens.

    :raises Exception: anything but a named error, or a store that contradicts itself.
    """
    disk = WatchedDisk(image=image.copy())
    loop = SimLoop()
    stores: list[object] = []

    async def run() -> str:
        try:
            store = await open_sim_store(disk, loop, read_only=read_only, instant=True)
        except BlobStoreError as error:
            return type(error).__name__
        stores.append(store)
        found = await _look(store)
        report = await store.verify()
        assert {bytes(guid) for guid, _ in report.bad} >= {g for g, frame in found.items() if frame is None}
        if read_only:
            assert disk.live == image, "a read-only opener changed the file"
        elif deep:
            await _go_on(store, disk, loop, stores)
        return "opened"

    try:
        return loop.run(run())
    finally:
        for store in stores:
            forget(store)


async def _look(store) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    room = bytearray(store.page_size)
    for guid in (await store.list_blobs())[:LOOKS]:
        try:
            await store.read_blob(guid, room)
            found[bytes(guid)] = bytes(room) + (await store.stat_blob(guid)).meta
        except BlobCorrupt as error:
            found[bytes(error.guid or b"not named")] = None
    return found


async def _go_on(store, disk, loop, stores) -> None:
    with contextlib.suppress(BlobStoreError):
        await store.commit([(bytes(16), bytes([7]) * store.page_size, bytes([9]) * 200)])
        await store.write_blob(bytes([1]) * 16, bytes([8]) * store.page_size)
    before = await _look(store)
    await store.aclose()
    stores.append(again := await open_sim_store(disk, loop, instant=True))
    after = await _look(again)
    # A cut can have taken a frame's last byte, a zero: when the file has grown again the frame is whole.
    healed = {guid for guid, content in before.items() if content is None and after.get(guid)}
    assert {g: None if g in healed else c for g, c in after.items()} == before, "what it showed is not there"
