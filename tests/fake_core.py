"""An asynchronous core whose operations really suspend, and end when a test says so."""

from __future__ import annotations

import asyncio
import queue
import types

from uringblob import fork
from uringblob.completion import Completion
from uringblob.memory_store import AsyncMemoryBlobStore
from uringblob.sync.file_store import FileBlobStore
from uringblob.sync.store_handle import StoreHandle

PAGE = 4096


class FakeCore(AsyncMemoryBlobStore):
    """A memory store behind gates: an operation named in ``held`` waits for ``let_go()``."""

    path = "fake.blobs"
    left_behind = False

    def __init__(self, page_size: int = PAGE) -> None:
        super().__init__(page_size)
        self.loop = asyncio.get_running_loop()
        self._caller_reads = types.SimpleNamespace(interrupted=False)
        self._interrupted_read = False
        self.held: set[str] = set()
        self.waiting: list[Completion[None]] = []
        #: Names of the held operations, as they begin.
        self.began: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.flush_error: BaseException | None = None
        self.log: list[str] = []
        self.abandoned = 0
        fork.remember(self)

    def let_go(self) -> None:
        """End every held operation; from any thread."""
        self.held.clear()
        for completion in self.waiting:
            self.loop.call_soon_threadsafe(completion.resolve, None)

    async def _pass(self, name: str) -> None:
        await asyncio.sleep(0)
        if name in self.held:
            completion: Completion[None] = Completion(loop=self.loop)
            self.waiting.append(completion)
            self.began.put(name)
            await completion

    async def read_blob(self, guid, dst):
        await self._pass("read")
        await super().read_blob(guid, dst)

    def _read_in_caller(self, guid, dst):
        return 0  # there is no file to read in the caller's thread

    async def _finish_read(self, guid, dst, answer):
        await self.read_blob(guid, dst)

    async def write_blob(self, guid, src, meta=b""):
        await self._pass("write")
        await super().write_blob(guid, src, meta)

    async def commit(self, writes=(), deletes=()):
        await self._pass("commit")
        await super().commit(writes, deletes)

    def begin_commit(self, writes, deletes, end, *, alone):
        return False  # each needs a task here

    async def flush(self):
        await self._pass("flush")
        self.log.append("flush")
        if self.flush_error is not None:
            raise self.flush_error
        await super().flush()

    async def aclose(self, flush=True):
        if self.closed:
            return
        await self._pass("close")
        try:
            if flush:
                await self.flush()
        finally:
            self.log.append("closed")
            await super().aclose(flush)

    def _has(self, guid):
        return self._store.has_blob(guid)

    def abandon(self):
        self.abandoned += 1


def open_fake(page_size: int = PAGE) -> tuple[FileBlobStore, FakeCore]:
    """Return a synchronous store over a fake core, and the core."""

    async def opener():
        return FakeCore(page_size)

    store = FileBlobStore(StoreHandle(opener, "fake"))
    return store, store._core
