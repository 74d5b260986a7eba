"""A store of millions of blobs on a sparse file: the map is real, the frames are holes.

A hole reads as zeros, and the checksum in the map is that of a frame of zeros, so every blob can
be read and verified.  The store writes its own map: the entries are loaded as recovery would, and
a compaction makes the snapshot.
"""

from __future__ import annotations

import asyncio
import hashlib
import os

from uringblob import AsyncFileBlobStore
from uringblob.buffers.checksum import frame_checksum
from uringblob.store.format import pack_entry
from uringblob.store.index.shards import Shards

#: Blobs after which the loop gets a turn.
_CHUNK = 100_000


def guid_of(number: int) -> bytes:
    """Return the name of blob ``number``: spread like random ones, the same in every run."""
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=16).digest()


async def build(path: str, blobs: int, page_size: int) -> None:
    """Make the store at ``path``, unless it is there; nothing is left of one half made."""
    if os.path.exists(path):
        return
    temporary = f"{path}.half"
    if os.path.exists(temporary):
        os.unlink(temporary)
    async with AsyncFileBlobStore.open(temporary, page_size=page_size) as store:
        core = store._core
        first = core.index.slots.limit
        os.truncate(temporary, (first + blobs) * page_size)
        core.index.slots.extend(first + blobs)
        checksum = frame_checksum(memoryview(bytes(page_size)))
        entries: Shards[int] = Shards()
        for number in range(blobs):
            if number % _CHUNK == 0:
                await asyncio.sleep(0)
            entries[guid_of(number)] = pack_entry(first + number, checksum)
        clash = core.index.load(entries, [], core.log.seq)
        if clash is not None:
            raise RuntimeError(f"the slot of {clash.hex()} was taken")
        await core.growth.complete_log_space()  # the entries came behind its back
        await core.maintenance.start_compaction()
    os.rename(temporary, path)
