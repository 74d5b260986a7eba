"""Tiers before real servers: commits whose every state is known, and what the bucket may show of them."""

from __future__ import annotations

import asyncio
import sys
import time

from uringblob import AsyncFileBlobStore, BlobGuid, BlobStoreIOError
from uringblob.remote import AsyncRemoteBlobStore
from uringblob.tiered import AsyncTieredBlobStore

GUIDS = [BlobGuid(bytes([number]) * 16) for number in range(1, 6)]
#: Seconds after which a call counts as hanging.
HANGS_S = 180

#: Another machine: takes the bucket over, prints what it has, and commits one frame.
TAKES_OVER = """\
import sys
from uringblob import FileBlobStore
from uringblob.remote import RemoteBlobStore
from uringblob.tiered import TieredBlobStore

path, url = sys.argv[1:]
remote = RemoteBlobStore.open(url)
page_size = remote.page_size
with TieredBlobStore(FileBlobStore.open(path, page_size=page_size), remote) as tier:
    room = bytearray(page_size)
    for guid in tier.list_blobs():
        tier.read_blob(guid, room)
        print(guid, int.from_bytes(room[:8], "little"))
    tier.commit([(bytes(16), bytes(page_size))])
    tier.durable_remotely()
"""


async def open_tier(path, url, page_size, **options):
    remote = await AsyncRemoteBlobStore.open(url, page_size=page_size)
    local = await AsyncFileBlobStore.open(path, page_size=page_size)
    return await AsyncTieredBlobStore(local, remote, **options)


async def contents(store):
    room, found = bytearray(store.page_size), {}
    for guid in await store.list_blobs():
        await store.read_blob(guid, room)
        number = int.from_bytes(room[:8], "little")
        assert room == number.to_bytes(8, "little") * (store.page_size // 8)
        found[guid] = number
    return found


async def until_it_works(call):
    """Return what ``call`` returns, once the server does what it is asked for."""
    deadline = time.monotonic() + HANGS_S
    while True:
        try:
            return await asyncio.wait_for(call(), HANGS_S)
        except BlobStoreIOError:
            assert time.monotonic() < deadline, "it goes on failing"
            await asyncio.sleep(0.1)


class Commits:
    """One commit after the other; ``states[n]`` is what the first ``n`` of them lead to."""

    def __init__(self, page_size):
        self._page_size = page_size
        self.states = [{}]
        self._seen = 0

    @property
    def now(self):
        return self.states[-1]

    async def make(self, tier, count=1):
        """Commit: two frames, and every third time a deletion."""
        for number in range(len(self.states), len(self.states) + count):
            written = [GUIDS[number % 5], GUIDS[(number + 1) % 5]]
            deleted = [GUIDS[(number + 3) % 5]] if number % 3 == 0 else []
            state = {guid: stamp for guid, stamp in self.now.items() if guid not in deleted}
            self.states.append({**state, **dict.fromkeys(written, number)})
            frame = number.to_bytes(8, "little") * (self._page_size // 8)
            await asyncio.wait_for(tier.commit([(guid, frame) for guid in written], deleted), HANGS_S)

    async def judge(self, url):
        """Look into the bucket from anew: it has a state of the history, and none before the last one seen."""
        async with AsyncRemoteBlobStore.open(url, read_only=True) as reader:
            found = await contents(reader)
        assert found in self.states, f"{found} is no state of the history"
        at = self.states.index(found)
        assert at >= self._seen, "the bucket went back"
        self._seen = at

    async def until_uploaded(self, tier, url):
        """Return when the bucket has all; uploads may fail meanwhile, and are tried again."""
        await until_it_works(tier.durable_remotely)
        await self.judge(url)
        assert self.states[self._seen] == self.now

    async def taken_over_by_another_process(self, path, url):
        """Have it open the bucket; return when it has committed."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", TAKES_OVER, path, url), stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await asyncio.wait_for(child.communicate(), HANGS_S)
        assert child.returncode == 0
        words = [line.split() for line in printed.decode().splitlines()]
        assert {BlobGuid(guid): int(number) for guid, number in words} == self.now
