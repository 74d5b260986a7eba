"""Snapshots: what they show stays, whatever happens to their store."""

from __future__ import annotations

from uringblob.api.async_store import AsyncBlobSnapshot
from uringblob.errors import BlobChanged, BlobNotFound, StoreClosed, StoreReadOnly
from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject
from uringblob.units import BUF_ALIGN

KEPT, REPLACED, DELETED, LATER = (BlobGuid(bytes([number]) * 16) for number in range(1, 5))
#: What is there when a snapshot is taken.
STAMPS = {KEPT: 1, REPLACED: 2, DELETED: 3}


async def _changed_since(s: Subject) -> AsyncBlobSnapshot:
    """Return a snapshot whose store has changed since."""
    await s.store.write_blobs((guid, s.frame(stamp)) for guid, stamp in STAMPS.items())
    snapshot = await s.store.snapshot()
    await s.store.write_blob(REPLACED, s.frame(12))
    await s.store.commit([(LATER, s.frame(14))], [DELETED])
    await s.store.flush()
    return snapshot


@check("A snapshot shows its moment, or raises BlobChanged where a frame was replaced.")
async def snapshot_of_names(s: Subject) -> None:
    async with await _changed_since(s) as snapshot:
        expect(sorted(await snapshot.list_blobs()) == sorted(STAMPS), "it lists other names than there were")
        for guid, stamp in STAMPS.items():
            room = s.blank()
            try:
                await snapshot.read_blob(guid, room)
            except BlobChanged as error:
                expect(guid != KEPT, f"{guid} is as it was, and the snapshot raises {error!r}")
            else:
                expect(
                    s.number(room) == stamp, f"{guid} was {stamp}, and the snapshot shows {s.number(room)}"
                )
        await refused(BlobNotFound, snapshot.read_blob, LATER, s.blank())


@check("Every read and list in a snapshot answers as at its moment, to its close.", "own_snapshot")
async def snapshot_stays(s: Subject) -> None:
    async with await _changed_since(s) as snapshot, await s.store.snapshot() as newer:
        for _ in range(2):
            names = await snapshot.list_blobs()
            expect(sorted(names) == sorted(STAMPS), f"list_blobs of the snapshot gives {sorted(names)}")
            expect([name async for name in snapshot.iter_blobs()] == sorted(STAMPS), "iter_blobs differs")
            there = await snapshot.has_blobs([*STAMPS, LATER])
            expect(there == [True, True, True, False], f"has_blobs of the snapshot gives {there}")
            rooms = {guid: s.blank() for guid in STAMPS}
            answers = await snapshot.read_blobs(list(rooms.items()))
            expect(answers == [None] * 3, f"read_blobs of the snapshot gives {answers}")
            for guid, room in rooms.items():
                expect(s.number(room) == STAMPS[guid], f"{guid} was {STAMPS[guid]}, and is {s.number(room)}")
                part = bytearray(BUF_ALIGN)
                await snapshot.read_blob_range(guid, 0, part)
                expect(part == room[:BUF_ALIGN], "read_blob_range gives other bytes than read_blobs")
            await refused(BlobNotFound, snapshot.read_blob, LATER, s.blank())
            await s.store.write_blobs((guid, s.frame(20)) for guid in (KEPT, REPLACED, DELETED))
            await s.store.flush()
        expect(sorted(await newer.list_blobs()) == [KEPT, REPLACED, LATER], "the newer snapshot has changed")
    expect(await s.read(KEPT) == 20, "closing the snapshot changed its store")


@check("A snapshot is read-only: changes raise StoreReadOnly, and flush has nothing to do.")
async def snapshot_is_read_only(s: Subject) -> None:
    await s.store.write_blob(KEPT, s.frame(1))
    async with await s.store.snapshot() as snapshot:
        for refusal in (
            lambda: snapshot.write_blob(KEPT, s.frame(2)),
            lambda: snapshot.write_blobs([(KEPT, s.frame(2))]),
            lambda: snapshot.write_blobs_with_data_sync([(KEPT, s.frame(2))]),
            lambda: snapshot.delete_blob(KEPT),
            lambda: snapshot.commit([(KEPT, s.frame(2))]),
        ):
            await refused(StoreReadOnly, refusal)
        await snapshot.flush()
        expect(not snapshot.needs_flush(), "needs_flush() of a snapshot is true")
        expect(isinstance(snapshot.seq, int), f"seq is {snapshot.seq!r}")
    expect(await s.read(KEPT) == 1, "a refused change was made")


@check("A closed snapshot raises StoreClosed, and its store goes on; one of a closed store does, too.")
async def snapshot_ends(s: Subject) -> None:
    await s.store.write_blob(KEPT, s.frame(1))
    first, second, third = [await s.store.snapshot() for _ in range(3)]
    await second.aclose()
    await second.aclose()
    await refused(StoreClosed, second.list_blobs)
    await refused(StoreClosed, second.read_blob, KEPT, s.blank())
    await s.store.write_blob(LATER, s.frame(2))
    for snapshot in (first, third):
        expect(await snapshot.list_blobs() == [KEPT], "closing one snapshot changed another")
    await first.aclose()
    expect(await s.read(LATER) == 2, "the store does not go on")
    s.forget(s.store)
    await s.store.aclose()
    if s.has("own_close"):
        await refused(StoreClosed, third.read_blob, KEPT, s.blank())
    await third.aclose()
