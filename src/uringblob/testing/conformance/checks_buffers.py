"""What may stand where a buffer is expected, and what a store hands out."""

from __future__ import annotations

import array
import asyncio
import mmap
from collections.abc import Callable
from typing import Any

from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.errors import BlobNotFound
from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject
from uringblob.units import BUF_ALIGN

MISUSE = (ValueError, TypeError)


def _shapes(s: Subject) -> list[Any]:
    """Writable objects of one frame each."""
    size = s.page_size
    odd = memoryview(bytearray(size + 1))[1:]
    return [
        AlignedBlobBuf.zeroed(size),
        s.store.alloc_blob_buf_uninit(),
        bytearray(size),
        odd,
        memoryview(bytearray(size)).cast("I"),
        memoryview(bytearray(size)).cast("B", (2, size // 2)),
        array.array("d", bytes(size)),
        mmap.mmap(-1, size),
    ]


def _flat(buffer: Any) -> bytes:
    return bytes(buffer.view) if isinstance(buffer, AlignedBlobBuf) else memoryview(buffer).tobytes()


def _fill(buffer: Any, frame: bytes) -> None:
    view = buffer.view if isinstance(buffer, AlignedBlobBuf) else memoryview(buffer).cast("B")
    view[:] = frame


@check(
    "Anything that supports the buffer protocol, is C-contiguous and holds exactly one frame may stand "
    "where a buffer is expected; unaligned memory works."
)
async def every_kind_of_buffer(s: Subject) -> None:
    guid = BlobGuid.random()
    for number, src in enumerate(_shapes(s), start=1):
        flat = src if isinstance(src, AlignedBlobBuf) else memoryview(src).cast("B").cast("B")
        expect(len(flat) == s.page_size, "the suite made a wrong buffer")
        _fill(src, s.frame(number))
        await s.store.write_blob(guid, src)
        expect(await s.read(guid) == number, f"write_blob of {src!r} is not what is read")
        await s.store.write_blobs([(guid, src)])
        await s.store.write_blobs_with_data_sync([(guid, src)])
        await s.store.commit([(guid, src)])
    await s.store.write_blob(guid, memoryview(s.frame(99)))
    for dst in _shapes(s):
        await s.store.read_blob(guid, dst)
        expect(_flat(dst) == s.frame(99), f"read_blob into {dst!r} is not what was written")
        _fill(dst, s.frame(0))
        expect(await s.store.read_blobs([(guid, dst)]) == [None], f"read_blobs into {dst!r} failed")
        expect(_flat(dst) == s.frame(99), f"read_blobs into {dst!r} is not what was written")


def _takers(s: Subject, guid: BlobGuid) -> tuple[list[Callable[[Any], Any]], list[Callable[[Any], Any]]]:
    store = s.store
    readers: list[Callable[[Any], Any]] = [
        lambda dst: store.read_blob(guid, dst),
        lambda dst: store.read_blobs([(guid, dst)]),
    ]
    writers: list[Callable[[Any], Any]] = [
        lambda src: store.write_blob(guid, src),
        lambda src: store.write_blobs([(guid, src)]),
        lambda src: store.write_blobs_with_data_sync([(guid, src)]),
        lambda src: store.commit([(guid, src)]),
    ]
    return readers, writers


@check("A buffer of a wrong length is a ValueError, before any I/O.")
async def buffer_of_wrong_length(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    readers, writers = _takers(s, guid)
    for size in (0, 1, s.page_size - 1, s.page_size + 1, 2 * s.page_size):
        for take in [*readers, *writers]:
            wrong = bytearray(b"\xee") * size
            await refused(ValueError, take, wrong)
            expect(wrong == b"\xee" * size, "a refused read filled its buffer")
    with AlignedBlobBuf.zeroed(2 * s.page_size) as twice:
        for take in [*readers, *writers]:
            await refused(ValueError, take, twice)
    expect(await s.read(guid) == 1, "a refused write changed the blob")


@check("A buffer is writable where it is read into.")
async def read_only_buffer(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    readers, _ = _takers(s, guid)
    for take in readers:
        dst = bytes(bytearray(s.page_size))
        await refused(MISUSE, take, dst)
        await refused(MISUSE, take, memoryview(bytearray(s.page_size)).toreadonly())
        expect(dst == bytes(s.page_size), "a read-only buffer was written to")
    await refused(MISUSE, s.store.read_blob_range, guid, 0, bytes(BUF_ALIGN))
    expect(await s.read(guid) == 1, "the store does not go on")


@check("A buffer is C-contiguous and supports the buffer protocol, else ValueError or TypeError.")
async def no_buffer(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    readers, writers = _takers(s, guid)
    for take in [*readers, *writers]:
        await refused(MISUSE, take, memoryview(bytearray(2 * s.page_size))[::2])
        for thing in (None, "x" * s.page_size, s.page_size, object()):
            await refused(TypeError, take, thing)
    expect(await s.read(guid) == 1, "a refused write changed the blob")


@check("After release every use of a buffer raises ValueError.")
async def released_buffer(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    readers, writers = _takers(s, guid)
    for take in [*readers, *writers]:
        buf = s.store.alloc_blob_buf_zeroed()
        buf.release()
        await refused(ValueError, take, buf)
    expect(await s.read(guid) == 1, "a refused write changed the blob")


@check("A buffer from another store works.")
async def buffer_of_another_store(s: Subject) -> None:
    other = await s.another()
    guid = BlobGuid.random()
    with other.alloc_blob_buf_zeroed() as buf:
        buf.view[:] = s.frame(7)
        await s.store.write_blob(guid, buf)
        buf.view[:] = s.frame(8)
        await s.store.read_blob(guid, buf)
        expect(s.number(buf.view) == 7, "the other store's buffer does not hold what was written")
        await other.aclose()
        await s.store.read_blob(guid, buf)
        await s.store.write_blob(guid, buf)
    expect(await s.read(guid) == 7, "a buffer of a store that was closed meanwhile did not work")


@check("A buffer from before a reopen works; it counts as unregistered.", "reopen")
async def buffer_from_before_a_reopen(s: Subject) -> None:
    guid = BlobGuid.random()
    with s.store.alloc_blob_buf_zeroed() as buf:
        buf.view[:] = s.frame(7)
        await s.store.write_blob(guid, buf)
        await s.reopen(flush=True)
        expect(not buf.registered, "the buffer still says that it is registered")
        await s.store.read_blob(guid, buf)
        expect(s.number(buf.view) == 7, "it does not hold what was written")
        buf.view[:] = s.frame(8)
        await s.store.commit([(guid, buf)])
    expect(await s.read(guid) == 8, "what was written from it is not there")


@check("alloc_blob_buf_zeroed(): a zero-filled frame; the pool when it has room, else the heap.")
async def zeroed_buffers(s: Subject) -> None:
    dirty = [s.store.alloc_blob_buf_uninit() for _ in range(4)]
    for buf in dirty:
        buf.view[:] = s.frame(1)
        buf.release()
    count = 80 if s.page_size < 1 << 16 else 68
    bufs = [s.store.alloc_blob_buf_zeroed() for _ in range(count)]
    blank = bytes(s.page_size)
    expect(all(bytes(buf.view) == blank for buf in bufs), "a zeroed buffer is not zero")
    expect(all(len(buf) == s.page_size for buf in bufs), "a buffer is not one frame long")
    expect(all(buf.address % BUF_ALIGN == 0 for buf in bufs), "a buffer is not aligned")
    places = sorted(buf.address for buf in bufs)
    gaps = [b - a for a, b in zip(places, places[1:])]  # noqa: B905, RUF007 - pairs of neighbours, on 3.10
    expect(min(gaps) >= s.page_size, "two buffers overlap")
    for buf in bufs:
        buf.release()


@check("alloc_blob_buf_uninit(): the same without zeroing; the caller fills all of it.")
async def uninit_buffers(s: Subject) -> None:
    bufs = [s.store.alloc_blob_buf_uninit() for _ in range(8)]
    guids = [BlobGuid.random() for _ in bufs]
    for number, buf in enumerate(bufs):
        expect(len(buf) == s.page_size, "a buffer is not one frame long")
        expect(buf.address % BUF_ALIGN == 0, "a buffer is not aligned")
        buf.view[:] = s.frame(number)
    await s.store.write_blobs(zip(guids, bufs))  # noqa: B905 - equally long by construction
    for number, (guid, buf) in enumerate(zip(guids, bufs)):  # noqa: B905 - the same
        expect(s.number(buf.view) == number, "a write changed its buffer")
        expect(await s.read(guid) == number, "what is read is not what the buffer held")
        buf.release()


@check("Until a call returns or raises, its buffers belong to it, and no longer.")
async def buffers_come_back(s: Subject) -> None:
    guid = BlobGuid.random()
    src = bytearray(s.frame(1))
    await s.store.write_blob(guid, src)
    src[:] = s.frame(2)
    expect(await s.read(guid) == 1, "the store shares memory with the buffer after the write returned")
    dst = s.blank()
    await s.store.read_blob(guid, dst)
    await s.store.write_blob(guid, s.frame(3))
    expect(s.number(dst) == 1, "the buffer of a read that returned changed later")
    src.append(0)  # a BufferError while the store still holds a view
    buf = s.store.alloc_blob_buf_zeroed()
    await refused(BlobNotFound, s.store.read_blob, BlobGuid.random(), buf)
    await asyncio.sleep(0)  # until then asyncio holds the error, whose traceback holds the buffer
    buf.release()
