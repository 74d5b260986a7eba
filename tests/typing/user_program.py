"""A program as a user writes it, of every public name; `make types` checks it with `mypy --strict`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from uringblob import (
    PAGE_SIZE,
    AlignedBlobBuf,
    AsyncBlobSnapshot,
    AsyncBlobStore,
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BackupReport,
    BlobChanged,
    BlobCorrupt,
    BlobGuid,
    BlobNotFound,
    BlobSnapshot,
    BlobStat,
    BlobStore,
    BlobStoreError,
    BlobStoreIOError,
    Changes,
    ConditionFailed,
    FileBlobStore,
    MemoryBlobStore,
    StoreObserver,
    observe,
)
from uringblob.remote import AsyncRemoteBlobStore, RemoteBlobStore


def tell(done: int, total: int) -> None:
    """Show how far a verification came."""
    print(f"{done} of {total}")


class Slow:
    """Notes what took long; a `StoreObserver` without saying so."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []

    def observe(self, operation: str, size_bytes: int, duration_s: float, outcome: str) -> None:
        """Take note of one call."""
        if duration_s > 1 and outcome == "ok" and size_bytes:
            self.calls.append((operation, duration_s))


def keep(store: BlobStore, frames: Iterable[tuple[uuid.UUID, bytes]]) -> list[BlobGuid]:
    """Commit frames in whatever store this is, and read one back."""
    store.commit(frames, [BlobGuid.random()])
    guids: list[BlobGuid] = store.list_blobs()
    there: list[bool] = store.has_blobs(guids)
    names: Iterator[BlobGuid] = store.iter_blobs(after=guids[0], limit=10)
    stats: Iterator[tuple[BlobGuid, BlobStat]] = store.iter_blobs(limit=10, meta=True)
    store.write_blob(guids[0], bytes(store.page_size), b"image/png")
    store.commit([(guids[0], bytes(store.page_size), b"image/png")])
    store.write_blobs([(guids[0], bytes(store.page_size)), (guids[0], bytes(store.page_size), b"image/png")])
    print(list(stats), store.stat_blob(guids[0]).meta.decode())
    print(len(store), guids[0] in store, there, list(names))
    room = bytearray(store.page_size)
    outcomes: list[BlobStoreError | None] = store.read_blobs([(guid, room) for guid in guids])
    bad: list[BlobGuid] = [
        guid for guid, error in zip(guids, outcomes, strict=True) if isinstance(error, BlobCorrupt)
    ]
    with store.snapshot() as snap:
        seq: int = snap.seq
        still: BlobSnapshot = snap
        print(seq, len(still), still.stats().held_bytes)
    copied: BackupReport = store.backup(MemoryBlobStore(store.page_size), progress=tell, rate=1e6)
    print(copied.ok, copied.copied + copied.skipped + copied.deleted, copied.bytes, copied.bad)
    known: dict[BlobGuid, int] = {guid: store.checksum(guid) for guid in guids}
    try:
        store.commit(deletes=guids, if_absent=[BlobGuid.random()], if_checksum=known)
    except ConditionFailed as failed:
        print(failed.guid, failed.expected, failed.found)
    report = store.verify(tell, rate=1e6, deadline=60.0, since=None)
    resume: BlobGuid | None = report.resume
    print(resume)
    named: tuple[tuple[BlobGuid, BlobStoreError], ...] = report.bad
    return bad if report.ok else [guid for guid, _ in named]


async def serve(store: AsyncBlobStore) -> int:
    """Use a store of either kind from a coroutine."""
    guid = BlobGuid(uuid.uuid4())
    with store.alloc_blob_buf_zeroed() as buf:
        view: memoryview = buf.view
        view[0] = 1
        await store.write_blobs_with_data_sync([(guid, buf)])
        checksum: int = await store.checksum(guid)
        print(checksum)
        print([name async for name in store.iter_blobs()], await store.has_blobs([guid]))
        async with await store.snapshot() as snap:
            still: AsyncBlobSnapshot = snap
            try:
                await still.read_blob(guid, buf)
            except BlobChanged as error:
                print(error.guid)
        if store.needs_flush():
            await store.flush()
        await store.commit(deletes=[guid], if_checksum={guid: checksum})
        try:
            await store.read_blob_range(guid, 0, memoryview(bytearray(4096)))
        except BlobNotFound as error:
            print(error.guid)
        except BlobStoreIOError as error:
            number: int | None = error.errno
            print(number)
    return store.stats().blobs


async def main(path: Path) -> None:
    """Open every kind of store."""
    async with AsyncFileBlobStore.open(path, page_size=PAGE_SIZE, engine="auto", direct=None) as store:
        print(await serve(store), store.stats().engine_reason)
    opened: AsyncFileBlobStore = await AsyncFileBlobStore.open(path, read_only=True)
    await opened.set_max_bytes(1 << 40)
    await opened.aclose(flush=False)
    async with AsyncRemoteBlobStore.open("s3://bucket/prefix", read_only=True, lease=600.0) as reader:
        moved: bool = await reader.refresh()
        print(moved, await serve(reader))
        async for changes in reader.follow():
            named: Changes = changes
            print(named.seq, named.written, named.deleted)
    slow: StoreObserver = Slow()
    observed: AsyncMemoryBlobStore = observe(AsyncMemoryBlobStore(page_size=4096), slow)
    print(await serve(observed))


def follow(reader: RemoteBlobStore) -> Iterator[Changes]:
    """Follow from a thread."""
    return reader.follow(poll=0.5) if reader.refresh() else iter(())


if __name__ == "__main__":
    asyncio.run(main(Path("typed.blobs")))
    with FileBlobStore.open("typed.blobs") as file_store, MemoryBlobStore() as memory_store:
        for each in (file_store, memory_store):
            print(keep(each, [(uuid.uuid4(), bytes(PAGE_SIZE))]))
    print(len(AlignedBlobBuf.zeroed()))
