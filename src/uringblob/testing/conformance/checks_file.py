"""Checks of stores with a file and an engine."""

from __future__ import annotations

import asyncio
import gc
import warnings

from uringblob.api.async_store import AsyncBlobStore
from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject


@check("stats(): engine, engine_reason, file_bytes, buffers say what is the case.", "file")
async def stats_of_a_file(s: Subject) -> None:
    await s.store.commit([(BlobGuid.random(), s.frame(1))])
    stats = s.raw.stats()
    expect(stats.engine_reason, "engine_reason is empty")
    expect(stats.file_bytes >= s.page_size, f"file_bytes is {stats.file_bytes}")
    expect(stats.allocated_bytes > 0, f"allocated_bytes is {stats.allocated_bytes}")
    expect(stats.slots_live == stats.blobs == 1, f"{stats.slots_live} slots live, {stats.blobs} blobs")
    expect(0 <= stats.buffers_registered <= stats.buffers, "more buffers registered than asked for")
    if stats.buffers_registered < stats.buffers:
        expect(stats.buffers_reason, "buffers_reason is empty though buffers are missing")
    expect(stats.in_flight == 0, f"{stats.in_flight} requests in flight while nothing is asked")
    if stats.engine == "io_uring":
        expect(stats.ring_enters > 0, "ring_enters is 0 on io_uring")


@check("alloc: leased from the registered pool when it has room, else from the heap.", "file")
async def pool_then_heap(s: Subject) -> None:
    room = s.raw.stats().buffers_registered
    idle = s.raw.stats().buffers_leased
    bufs = [s.store.alloc_blob_buf_zeroed() for _ in range(room + 2)]
    expect(all(buf.registered for buf in bufs[:room]), "a buffer is not registered though there was room")
    expect(not any(buf.registered for buf in bufs[room:]), "a buffer beyond the pool says registered")
    guids = [BlobGuid.random() for _ in bufs]
    for number, buf in enumerate(bufs):
        buf.view[:] = s.frame(number)
    await s.store.write_blobs(zip(guids, bufs))  # noqa: B905 - equally long by construction
    for number, (guid, buf) in enumerate(zip(guids, bufs)):  # noqa: B905 - the same
        await s.store.read_blob(guid, buf)
        expect(s.number(buf.view) == number, "a frame was mixed up")
        buf.release()
    expect(s.raw.stats().buffers_leased == idle, "released buffers still count as leased")


@check("flush: nothing to do, no system call.", "file")
async def flush_of_nothing(s: Subject) -> None:
    await s.store.write_blob(BlobGuid.random(), s.frame(1))
    await s.store.flush()
    before = s.raw.stats()
    await s.store.flush()
    after = s.raw.stats()
    same = (before.syncs, before.writes, before.ring_enters) == (after.syncs, after.writes, after.ring_enters)
    expect(same, f"it cost {after.syncs - before.syncs} syncs and {after.writes - before.writes} writes")


@check("has_blob: file and memory stores answer without I/O.", "file")
async def has_without_io(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.commit([(guid, s.frame(1))])
    before = s.raw.stats().reads
    expect(await s.store.has_blob(guid), "it is false for a blob that is there")
    expect(not await s.store.has_blob(BlobGuid.random()), "it is true for a blob that is not there")
    expect(s.raw.stats().reads == before, "it read")


@check("commit: the file store does it with one device flush.", "file")
async def one_flush_a_commit(s: Subject) -> None:
    guids = [BlobGuid.random() for _ in range(2)]
    for number in range(4):  # the slots are written once before
        await s.store.commit((guid, s.frame(number)) for guid in guids)
    before = s.raw.stats().syncs
    await s.store.commit((guid, s.frame(9)) for guid in guids)
    spent = s.raw.stats().syncs - before
    expect(spent == 1, f"it took {spent}")


@check(
    "An async file store belongs to the running event loop; elsewhere it is a RuntimeError.", "file", "async"
)
async def another_loop(s: Subject) -> None:
    async def elsewhere() -> None:
        await refused(RuntimeError, s.store.read_blob, BlobGuid.random(), s.blank())
        await refused(RuntimeError, s.store.write_blob, BlobGuid.random(), s.frame(1))
        await refused(RuntimeError, s.store.list_blobs)
        await refused(RuntimeError, s.store.flush)

    await asyncio.get_running_loop().run_in_executor(None, asyncio.run, elsewhere())
    expect(await s.store.list_blobs() == [], "the refused calls changed something")


@check("Garbage collection of an open store warns (ResourceWarning) and does not flush.", "file")
async def collected_while_open(s: Subject) -> None:
    other = await s.another()
    s.forget(other)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del other
        gc.collect()
        await asyncio.sleep(0)
    seen = [str(warning.category.__name__) for warning in caught]
    expect("ResourceWarning" in seen, f"the warnings are {seen}")


@check("The plain methods of an async store are plain.", "async")
async def plain_methods(s: Subject) -> None:
    assert isinstance(s.raw, AsyncBlobStore)
    for value in (
        s.raw.alloc_blob_buf_zeroed(),
        s.raw.alloc_blob_buf_uninit(),
        s.raw.needs_flush(),
        s.raw.stats(),
    ):
        expect(not asyncio.iscoroutine(value), f"{value!r} is a coroutine")
