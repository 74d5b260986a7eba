"""Batches and commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uringblob.errors import BlobNotFound
from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject


def _writers(s: Subject) -> list[Callable[[Any], Any]]:
    return [s.store.write_blobs, s.store.write_blobs_with_data_sync, s.store.commit]


@check("writes: iterable of (guid, buffer).")
async def any_iterable(s: Subject) -> None:
    for number, write in enumerate(_writers(s), start=1):
        guids = [BlobGuid.random() for _ in range(5)]
        await write((guid, s.frame(number)) for guid in guids)
        await write(iter(()))
        await write({guids[0]: s.frame(number)}.items())
        for guid in guids:
            expect(await s.read(guid) == number, f"{write.__name__} lost a write")


@check("Batches of 1, 2 and 40 frames, scattered in memory or not, are written whole.")
async def batches_of_many_sizes(s: Subject) -> None:
    for write in _writers(s):
        for count in (1, 2, 40):
            bufs = [s.store.alloc_blob_buf_uninit() for _ in range(count)]
            batch = [(BlobGuid.random(), buf) for buf in bufs]
            for number, (_, buf) in enumerate(batch):
                buf.view[:] = s.frame(number)
            await write(batch[::2] + batch[1::2])
            for number, (guid, buf) in enumerate(batch):
                expect(await s.read(guid) == number, f"{write.__name__} of {count} mixed up its frames")
                buf.release()


@check("Every guid and length is checked before any is applied.")
async def checked_before_applied(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    for write in _writers(s):
        await refused(ValueError, write, [(guid, s.frame(2)), (BlobGuid.random(), b"short")])
        await refused(ValueError, write, [(guid, s.frame(2)), (b"short", s.frame(2))])
        await refused(TypeError, write, [(guid, s.frame(2)), (None, s.frame(2))])
        expect(await s.read(guid) == 1, f"{write.__name__} applied a part of a refused batch")
    await refused(ValueError, s.store.commit, [(guid, s.frame(2))], [b"short"])
    await refused(TypeError, s.store.commit, [(guid, s.frame(2))], [7])
    expect(await s.read(guid) == 1, "commit applied a part of a refused batch")
    expect(await s.store.list_blobs() == [guid], "a refused batch left blobs behind")


@check("Last write wins for a repeated guid.")
async def last_write_wins(s: Subject) -> None:
    for write in _writers(s):
        guid, other = BlobGuid.random(), BlobGuid.random()
        await write(
            [(guid, s.frame(1)), (other, s.frame(7)), (guid.uuid, s.frame(2)), (bytes(guid), s.frame(3))]
        )
        expect(await s.read(guid) == 3, f"after {write.__name__} the blob is not the last of its writes")
        expect(await s.read(other) == 7, "the blob in between is wrong")


@check("read_blobs: per position None or the BlobStoreError of that position alone.")
async def read_many(s: Subject) -> None:
    guids = [BlobGuid.random() for _ in range(6)]
    await s.store.write_blobs((guid, s.frame(number)) for number, guid in enumerate(guids) if number % 2)
    frames = [s.blank() for _ in guids]
    errors = await s.store.read_blobs(list(zip(guids, frames)))  # noqa: B905 - equally long
    expect(type(errors) is list, f"it returned {errors!r}")
    expect(len(errors) == len(guids), f"{len(guids)} reads have {len(errors)} answers")
    for number, (error, frame) in enumerate(zip(errors, frames)):  # noqa: B905 - checked above
        if number % 2:
            expect(error is None, f"position {number}, which is there, has {error!r}")
            expect(s.number(frame) == number, f"position {number} has another blob's frame")
        else:
            expect(isinstance(error, BlobNotFound), f"position {number}, which is not there, has {error!r}")
            expect(frame == s.blank(), f"dst of position {number} was touched")
    for frame in frames:
        frame.append(0)  # a BufferError if one of the errors keeps a view of it alive
    expect(await s.store.read_blobs([]) == [], "reading nothing is not an empty list")
    twice = [s.blank(), s.blank()]
    expect(await s.store.read_blobs([(guids[1], frame) for frame in twice]) == [None, None], "twice the same")
    expect(twice == [s.frame(1)] * 2, "the same blob twice in one batch gives wrong bytes")


@check("commit(writes, deletes) applies both.")
async def commit(s: Subject) -> None:
    old, new, kept = (BlobGuid.random() for _ in range(3))
    await s.store.commit()
    await s.store.commit([(old, s.frame(1)), (kept, s.frame(2))])
    await s.store.commit([(new, s.frame(3))], [old, old])
    await s.store.commit(deletes=iter([BlobGuid.random()]))
    await s.store.commit(writes=iter([(kept, s.frame(4))]))
    expect(await s.read(old) is None, "a delete was not applied")
    expect(await s.read(new) == 3, "a write beside a delete was not applied")
    expect(await s.read(kept) == 4, "a commit of writes alone was not applied")
    expect(sorted(await s.store.list_blobs()) == sorted([new, kept]), "list_blobs does not agree")


@check("commit: a guid in both is a ValueError.")
async def commit_of_both(s: Subject) -> None:
    guid, other = BlobGuid.random(), BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    writes = [(other, s.frame(2)), (bytes(guid), s.frame(2))]
    await refused(ValueError, s.store.commit, writes, [guid.uuid])
    expect(await s.read(guid) == 1, "the refused commit changed the blob")
    expect(await s.read(other) is None, "the refused commit wrote another blob")


@check("commit becomes visible all at once.", "own_commit")
async def commit_is_visible_at_once(s: Subject) -> None:
    pair = [BlobGuid.random() for _ in range(4)]
    even, odd = BlobGuid.random(), BlobGuid.random()
    await s.store.commit([*((guid, s.frame(0)) for guid in pair), (even, s.frame(0))])
    done = asyncio.Event()

    async def change() -> None:
        for number in range(1, 25):
            here, gone = (odd, even) if number % 2 else (even, odd)
            writes = [(guid, s.frame(number)) for guid in pair]
            await s.store.commit([*writes, (here, s.frame(number))], [gone])
        done.set()

    async def watch() -> None:
        while not done.is_set():
            seen = [await s.read(guid) or 0 for guid in pair]
            expect(seen == sorted(seen), f"one after the other the blobs of a commit are read as {seen}")
            names = set(await s.store.list_blobs())
            expect(len(names & {even, odd}) == 1, "list_blobs shows half of a commit")
            await asyncio.sleep(0)

    watchers = [asyncio.ensure_future(watch()) for _ in range(3)]
    try:
        await change()
    finally:
        done.set()
        await asyncio.gather(*watchers)
