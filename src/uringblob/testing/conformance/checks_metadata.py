"""Checks of what a store keeps beside a frame: its checksum, and up to 255 bytes of its user's."""

from __future__ import annotations

from typing import Any

from uringblob.api.blob_stat import BlobStat
from uringblob.buffers.checksum import frame_checksum
from uringblob.errors import BlobNotFound
from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject
from uringblob.units import META_BYTES_MAX


@check("stat_blob(guid): BlobStat(size, checksum, meta); BlobNotFound.")
async def stat(s: Subject) -> None:
    guid = BlobGuid.random()
    await refused(BlobNotFound, s.store.stat_blob, guid)
    await s.store.write_blob(guid, s.frame(1))
    found = await s.store.stat_blob(guid.uuid)
    expected = BlobStat(s.page_size, frame_checksum(s.frame(1)), b"")
    expect(found == expected, f"it is {found} and not {expected}")
    await s.store.delete_blob(guid)
    await refused(BlobNotFound, s.store.stat_blob, guid)


@check("iter_blobs(meta=True): (guid, BlobStat), in ascending order, at most limit.")
async def iterate_with_stats(s: Subject) -> None:
    guids = sorted(BlobGuid.random() for _ in range(7))
    await s.store.write_blobs((guid, s.frame(number)) for number, guid in enumerate(guids))
    expected = [(guid, await s.store.stat_blob(guid)) for guid in guids]
    expect([pair async for pair in s.store.iter_blobs(meta=True)] == expected, "it yields something else")
    some = [pair async for pair in s.store.iter_blobs(guids[1], 3, meta=True)]
    expect(some == expected[2:5], f"from the third one on, three at most, it yields {some}")


@check("iter_blobs(meta=True): what is deleted meanwhile is left out, and does not end a page early.")
async def iterate_with_stats_beside_deletions(s: Subject) -> None:
    guids = sorted(BlobGuid.random() for _ in range(9))
    await s.store.write_blobs((guid, s.frame(1)) for guid in guids)
    seen: list[BlobGuid] = []
    async for guid, _ in s.store.iter_blobs(limit=4, meta=True):
        if not seen:
            await s.store.commit(deletes=guids[1:4])
        seen.append(guid)
    expect(seen == [guids[0], *guids[4:7]], "four at most, it does not yield the four that are there")


@check("Up to 255 bytes of metadata are kept with the blob, by every kind of write.", "own_stat_blob")
async def metadata_is_kept(s: Subject) -> None:
    metas = [b"", b"\0", bytes(range(31)), b"x" * 32, b"y" * 33, bytes(META_BYTES_MAX)]
    guids = [BlobGuid.random() for _ in metas]
    batch = [(guid, s.frame(1), meta) for guid, meta in zip(guids, metas, strict=True)]
    for write in (s.store.write_blobs, s.store.write_blobs_with_data_sync, s.store.commit):
        await s.store.commit(deletes=guids)
        await write(batch)
        await _expect_metas(s, guids, metas)
    for guid, meta in zip(guids, reversed(metas), strict=True):
        await s.store.write_blob(guid, s.frame(2), meta)
    await _expect_metas(s, guids, metas[::-1])
    await s.store.flush()
    await _expect_metas(s, guids, metas[::-1])


async def _expect_metas(s: Subject, guids: list[BlobGuid], metas: list[bytes]) -> None:
    found = [(await s.store.stat_blob(guid)).meta for guid in guids]
    expect(found == metas, f"the metadata is {found} and not {metas}")
    listed = {guid: stat.meta async for guid, stat in s.store.iter_blobs(meta=True)}
    expect(listed == dict(zip(guids, metas, strict=True)), f"iter_blobs(meta=True) gives {listed}")


@check("Metadata is replaced with its blob, and the last write of a batch wins.", "own_stat_blob")
async def metadata_is_replaced(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1), b"one")
    await s.store.write_blob(guid, s.frame(2))
    await _expect_metas(s, [guid], [b""])
    await s.store.commit([(guid, s.frame(1), b"one"), (guid, s.frame(2), b"two")])
    await _expect_metas(s, [guid], [b"two"])
    await s.store.commit([(guid, s.frame(1), b"one"), (guid, s.frame(2))])
    await _expect_metas(s, [guid], [b""])
    meta: Any = bytearray(b"mine")
    await s.store.write_blob(guid, s.frame(3), meta)
    meta[:] = b"else"
    await _expect_metas(s, [guid], [b"mine"])


@check(
    "More than 255 bytes of metadata: ValueError; another type: TypeError; nothing is applied.",
    "own_stat_blob",
)
async def metadata_is_checked(s: Subject) -> None:
    guid = BlobGuid.random()
    wrong: list[tuple[type[Exception], Any]] = [(ValueError, bytes(META_BYTES_MAX + 1)), (TypeError, "text")]
    for kind, meta in wrong:
        await refused(kind, s.store.write_blob, guid, s.frame(1), meta)
        batch: list[Any] = [(BlobGuid.random(), s.frame(1)), (guid, s.frame(1), meta)]
        for write in (s.store.write_blobs, s.store.write_blobs_with_data_sync, s.store.commit):
            await refused(kind, write, batch)
    expect(await s.store.list_blobs() == [], "a refused call left a blob behind")


@check("Metadata is durable with its blob.", "own_stat_blob", "reopen")
async def metadata_is_durable(s: Subject) -> None:
    guids = [BlobGuid.random() for _ in range(40)]
    metas = [bytes([number]) * (7 * number % 256) for number in range(40)]
    batch = [(guid, s.frame(1), meta) for guid, meta in zip(guids, metas, strict=True)]
    await s.store.commit(batch[:20])
    await s.store.write_blobs(batch[20:])
    await s.reopen(flush=True)
    await _expect_metas(s, guids, metas)
