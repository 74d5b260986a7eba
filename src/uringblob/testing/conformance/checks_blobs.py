"""Checks of one blob at a time: reading, writing, deleting, listing, lookups."""

from __future__ import annotations

import dataclasses
import functools

from uringblob.api.sync_store import BlobStore
from uringblob.buffers.checksum import frame_checksum
from uringblob.errors import BlobNotFound, BlobStoreError
from uringblob.guid import BlobGuid, GuidLike
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject
from uringblob.units import BUF_ALIGN


@check("read_blob fills dst; write_blob replaces the whole frame.")
async def write_then_read(s: Subject) -> None:
    one, two = BlobGuid.random(), BlobGuid.random()
    for number in range(1, 6):
        await s.store.write_blob(one, s.frame(number))
        await s.store.write_blob(two, s.frame(100 + number))
        expect(await s.read(one) == number, f"write {number} is not what the next read gives")
        expect(await s.read(two) == 100 + number, "a write to another blob is not what is read")


@check("read_blob: BlobNotFound if there is none, and dst is untouched.")
async def read_of_nothing(s: Subject) -> None:
    guid = BlobGuid.random()
    dst = s.blank()
    error = await refused(BlobNotFound, s.store.read_blob, guid, dst)
    expect(dst == s.blank(), "dst was touched")
    expect(isinstance(error, KeyError), "the error is no KeyError")
    expect(isinstance(error, BlobStoreError), "the error is no BlobStoreError")
    expect(str(guid) in str(error), f"the message does not name the guid: {error}")
    await s.store.write_blob(guid, s.frame(1))
    await s.store.delete_blob(guid)
    await refused(BlobNotFound, s.store.read_blob, guid, dst)
    expect(dst == s.blank(), "dst was touched, after a delete")
    await refused(BlobNotFound, s.store.read_blob_range, guid, 0, memoryview(dst)[:BUF_ALIGN])
    expect(dst == s.blank(), "read_blob_range touched dst")


@check("delete_blob: no-op if there is none.")
async def delete(s: Subject) -> None:
    guid, other = BlobGuid.random(), BlobGuid.random()
    await s.store.delete_blob(guid)
    await s.store.write_blobs([(guid, s.frame(1)), (other, s.frame(2))])
    await s.store.delete_blob(guid)
    await s.store.delete_blob(guid)
    expect(await s.read(guid) is None, "a deleted blob is still read")
    expect(not await s.store.has_blob(guid), "has_blob is true for a deleted blob")
    expect(await s.store.list_blobs() == [other], "list_blobs does not agree with the deletes")
    await s.store.write_blob(guid, s.frame(3))
    expect(await s.read(guid) == 3, "a blob written again after its delete is not there")
    await s.store.flush()
    expect(await s.read(other) == 2, "the other blob suffered")


@check("list_blobs(): list[BlobGuid] of all live blobs, in any order.")
async def list_all(s: Subject) -> None:
    expect(await s.store.list_blobs() == [], "a new store is not empty")
    guids = [BlobGuid.random() for _ in range(20)]
    await s.store.write_blobs((guid, s.frame(1)) for guid in guids)
    await s.store.write_blob(guids[0], s.frame(2))
    listed = await s.store.list_blobs()
    expect(isinstance(listed, list), f"it is a {type(listed).__name__}")
    expect(all(type(guid) is BlobGuid for guid in listed), "it holds something else than BlobGuid")
    expect(sorted(listed) == sorted(guids), "it is not what was written, each once")
    listed.clear()
    expect(len(await s.store.list_blobs()) == 20, "clearing the list changed the store")


@check("iter_blobs(after, limit): guids in ascending order, beyond after, at most limit.")
async def iterate(s: Subject) -> None:
    guids = sorted(BlobGuid.random() for _ in range(12))
    await s.store.write_blobs((guid, s.frame(1)) for guid in guids[::-1])
    listed = [guid async for guid in s.store.iter_blobs()]
    expect(listed == guids, "it is not what was written, each once, in ascending order")
    expect(all(type(guid) is BlobGuid for guid in listed), "it yields something else than BlobGuid")
    pages: list[BlobGuid] = []
    while page := [guid async for guid in s.store.iter_blobs(pages[-1] if pages else None, limit=5)]:
        expect(len(page) <= 5, f"with limit=5 it yields {len(page)}")
        pages += page
    expect(pages == guids, "page by page it yields something else")
    await s.store.delete_blob(guids[3])
    rest = [guid async for guid in s.store.iter_blobs(after=guids[3].uuid)]
    expect(rest == guids[4:], "beyond a blob that was deleted it yields something else")
    expect([guid async for guid in s.store.iter_blobs(limit=0)] == [], "with limit=0 it yields something")
    for wrong in ({"after": b"short"}, {"limit": -1}):
        await refused(ValueError, functools.partial(s.raw.iter_blobs, **wrong))


@check("iter_blobs: a blob that is there all the while is given exactly once, whatever changes meanwhile.")
async def iterate_beside_changes(s: Subject) -> None:
    # Deleted in front of the place of each yield, added behind all: places shift by one each time.
    guids = sorted((BlobGuid.random() for _ in range(20)), reverse=True)
    kept, doomed = guids[::2], guids[1::2]
    await s.store.write_blobs((guid, s.frame(1)) for guid in guids)
    seen: list[BlobGuid] = []
    async for guid in s.store.iter_blobs():
        seen.append(guid)
        if doomed:
            last = BlobGuid(b"\xff" * 15 + bytes([len(doomed)]))
            await s.store.commit([(last, s.frame(2)), (kept[0], s.frame(3))], [doomed.pop()])
    expect(len(seen) == len(set(seen)), "it yields a blob twice")
    expect(set(seen) >= set(kept), "it misses a blob that was there all the while")
    expect(seen == sorted(seen), "it is not in ascending order")


@check("has_blob tells whether the blob is there.")
async def has(s: Subject) -> None:
    guid = BlobGuid.random()
    expect(await s.store.has_blob(guid) is False, "it is not False before the write")
    await s.store.write_blob(guid, s.frame(1))
    expect(await s.store.has_blob(guid) is True, "it is not True after the write")
    expect(await s.store.has_blob(BlobGuid.random()) is False, "it is not False for another guid")


@check("len(store) is the number of blobs, guid in store is has_blob(guid); a store is true.", "sync")
async def len_and_in(s: Subject) -> None:
    assert isinstance(s.raw, BlobStore)
    expect(bool(s.raw), "an empty store is false")
    guids = [BlobGuid.random() for _ in range(3)]
    for guid in guids:
        await s.store.write_blob(guid, s.frame(1))
    await s.store.delete_blob(guids[0])
    expect(len(s.raw) == 2, f"of two blobs it counts {len(s.raw)}")
    expect(guids[1] in s.raw and guids[1].uuid in s.raw, "a blob that is there is not in it")
    expect(guids[0] not in s.raw, "a blob that was deleted is in it")


@check("has_blobs(guids): list[bool], in order, without I/O in file and memory stores.")
async def has_many(s: Subject) -> None:
    guids = [BlobGuid.random() for _ in range(8)]
    await s.store.write_blobs((guid, s.frame(1)) for guid in guids[::2])
    before = s.raw.stats().reads
    names: list[GuidLike] = [*guids, guids[0].uuid, bytes(guids[1])]
    found = await s.store.has_blobs(iter(names))
    expect(found == [True, False] * 5, f"of every second one that is there it says {found}")
    expect(s.raw.stats().reads == before or not s.has("own_stats"), "it read")
    expect(await s.store.has_blobs([]) == [], "of none it does not say []")
    await refused(TypeError, s.store.has_blobs, guids[0])
    await refused(ValueError, s.store.has_blobs, [guids[0], b"short"])


@check("read_blob_range fills dst with the frame's bytes from offset on.")
async def read_range(s: Subject) -> None:
    guid = BlobGuid.random()
    blocks = s.page_size // BUF_ALIGN
    frame = b"".join(bytes([number % 251]) * BUF_ALIGN for number in range(1, blocks + 1))
    await s.store.write_blob(guid, frame)
    for start, stop in {
        (0, blocks),
        (0, 1),
        (blocks - 1, blocks),
        (blocks // 2, blocks),
        (blocks // 3, blocks),
    }:
        dst = bytearray((stop - start) * BUF_ALIGN)
        await s.store.read_blob_range(guid, start * BUF_ALIGN, dst)
        expect(dst == frame[start * BUF_ALIGN : stop * BUF_ALIGN], f"blocks {start} to {stop} are wrong")
    room = bytearray(s.page_size + 2)
    await s.store.read_blob_range(guid, 0, memoryview(room)[1 : BUF_ALIGN + 1])
    expect(room[1 : BUF_ALIGN + 1] == frame[:BUF_ALIGN], "unaligned memory holds wrong bytes")
    expect(room[0] == 0 and not any(room[BUF_ALIGN + 1 :]), "bytes outside dst were touched")


@check("read_blob_range: offset and len(dst) multiples of 4096 inside the frame, else ValueError.")
async def read_range_refused(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    ask = s.store.read_blob_range
    for offset, size in [(1, BUF_ALIGN), (512, BUF_ALIGN), (0, 1), (0, 512), (0, BUF_ALIGN + 1)]:
        await refused(ValueError, ask, guid, offset, bytearray(size))
    for offset in (-BUF_ALIGN, s.page_size, s.page_size + BUF_ALIGN):
        await refused(ValueError, ask, guid, offset, bytearray(BUF_ALIGN))
    await refused(ValueError, ask, guid, 0, bytearray(s.page_size + BUF_ALIGN))
    await refused(TypeError, ask, guid, "0", bytearray(BUF_ALIGN))


@check("flush() returns once everything that returned before the call is durable; again and again.")
async def flush(s: Subject) -> None:
    await s.store.flush()
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    await s.store.flush()
    await s.store.flush()
    expect(await s.read(guid) == 1, "flush changed a blob")


@check("needs_flush(): a bool; it never waits.")
async def needs_flush_is_a_bool(s: Subject) -> None:
    expect(isinstance(s.store.needs_flush(), bool), f"it is {s.store.needs_flush()!r}")


@check(
    "needs_flush(): false after a successful flush or a no-op delete with nothing else pending.",
    "own_needs_flush",
)
async def needs_no_flush(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    await s.store.flush()
    expect(not s.store.needs_flush(), "it is true after a flush")
    await s.store.delete_blob(BlobGuid.random())
    expect(not s.store.needs_flush(), "it is true after a delete of nothing")
    await s.read(guid)
    expect(not s.store.needs_flush(), "it is true after a read")
    await s.store.delete_blob(guid)
    await s.store.flush()
    expect(not s.store.needs_flush(), "it is true after a flush of a delete")


@check("needs_flush(): false only if nothing that returned still needs flush.", "reopen")
async def needs_flush_after_changes(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    expect(s.store.needs_flush(), "it is false after write_blob")
    await s.store.flush()
    await s.store.write_blobs_with_data_sync([(guid, s.frame(2))])
    expect(s.store.needs_flush(), "it is false after write_blobs_with_data_sync")
    await s.store.flush()
    await s.store.delete_blob(guid)
    expect(s.store.needs_flush(), "it is false after delete_blob")


@check("checksum(guid): the XXH3-64 of the visible frame; BlobNotFound if there is none.")
async def checksums(s: Subject) -> None:
    guid = BlobGuid.random()
    await refused(BlobNotFound, s.store.checksum, guid)
    for number in (1, 2):
        await s.store.write_blob(guid, s.frame(number))
        found = await s.store.checksum(guid)
        expect(found == frame_checksum(s.frame(number)), f"after write {number} it is {found!r}")
    await s.store.delete_blob(guid)
    await refused(BlobNotFound, s.store.checksum, guid)


@check("verify(): a frozen report that has ok and bad; progress(done, total) is called.")
async def verify(s: Subject) -> None:
    guids = [BlobGuid.random() for _ in range(4)]
    await s.store.write_blobs((guid, s.frame(1)) for guid in guids)
    progressed: list[tuple[int, int]] = []
    report = await s.store.verify(lambda done, total: progressed.append((done, total)))
    expect(report.ok is True, f"a sound store is not ok: {report}")
    expect(report.bad == (), f"a sound store has bad blobs: {report.bad}")
    await refused(dataclasses.FrozenInstanceError, setattr, report, "bad", 1)
    expect(progressed, "progress was never called")
    expect(progressed == sorted(progressed), f"progress goes backwards: {progressed}")
    expect(progressed[-1][0] == progressed[-1][1], f"progress ends at {progressed[-1]}")
    report = await s.store.verify()
    expect(report.ok, "the second look differs")


@check("backup(target): not copied is what target has with the same checksum, deleted what it has beyond.")
async def backup(s: Subject) -> None:
    target = await s.another()
    guids = [BlobGuid.random() for _ in range(5)]
    await s.store.write_blobs((guid, s.frame(number)) for number, guid in enumerate(guids))
    await target.write_blobs(
        [(guids[0], s.frame(0)), (guids[1], s.frame(9)), (BlobGuid.random(), s.frame(9))]
    )
    progressed: list[tuple[int, int]] = []
    report = await s.store.backup(target, lambda done, total: progressed.append((done, total)))
    counts = (report.copied, report.skipped, report.deleted, report.bytes)
    expect(counts == (4, 1, 1, 4 * s.page_size), f"of 4 to copy, 1 there and 1 beyond it says {counts}")
    expect(report.ok and not report.bad, f"a sound store has bad blobs: {report.bad}")
    expect(sorted(await target.list_blobs()) == sorted(guids), "the copy has other blobs")
    for number, guid in enumerate(guids):
        frame = s.blank()
        await target.read_blob(guid, frame)
        expect(s.number(frame) == number, "the copy has another frame")
    expect(bool(progressed) and progressed[-1] == (5, 5), f"progress ends at {progressed[-1:]}")
    await refused(ValueError, s.store.backup, s.store)


@check("verify: what its deadline leaves out is checked by the next call, since the report's resume.")
async def verify_in_parts(s: Subject) -> None:
    guids = sorted(BlobGuid.random() for _ in range(4))
    await s.store.write_blobs((guid, s.frame(1)) for guid in guids)
    seen: list[BlobGuid | None] = []
    checked = 0
    while not seen or seen[-1] is not None:
        expect(len(seen) < len(guids), f"it comes to no end, but to {seen}")
        since = seen[-1] if seen else None
        # With such a rate one frame is read at a time, and the first one has always time.
        report = await s.store.verify(rate=s.page_size, deadline=0, since=since)
        expect(report.ok, f"a sound store is not ok: {report}")
        seen.append(report.resume)
        checked += report.blobs_checked
    expect(checked == len(guids), f"of {len(guids)} blobs {checked} were checked")
    expect(seen == [*guids[:-1], None], "it does not resume in ascending order")
    for wrong in ({"rate": 0}, {"rate": -1}, {"deadline": -1}, {"since": b"short"}):
        await refused(ValueError, functools.partial(s.store.verify, **wrong))
