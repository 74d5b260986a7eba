"""Constants, identities and what a store says of itself."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject
from uringblob.units import BUF_ALIGN, check_page_size

STATS_FIELDS = """
    engine engine_reason direct_io page_size blobs file_bytes allocated_bytes slots_live slots_free
    slots_pending buffers buffers_registered buffers_leased buffers_reason reads writes syncs
    bytes_read bytes_written ring_enters in_flight
    """.split()


@check("A store has one frame size, a multiple of 4096 from 4096 to 64 MiB.")
async def page_size_is_legal(s: Subject) -> None:
    check_page_size(s.raw.page_size)
    expect(s.raw.page_size == s.page_size, "page_size changed between two looks")


@check("Every method that takes a guid also takes 16-byte bytes or a uuid.UUID.")
async def every_kind_of_guid(s: Subject) -> None:
    name = uuid.uuid4()
    kinds: list[Any] = [BlobGuid(name), name.bytes, name]
    for number, (one, other) in enumerate([(a, b) for a in kinds for b in kinds], start=1):
        await s.store.write_blob(one, s.frame(number))
        expect(await s.read(other) == number, f"written as {one!r}, it is not found as {other!r}")
        expect(await s.store.has_blob(other), f"has_blob({other!r}) is false")
        await s.store.read_blob_range(other, 0, bytearray(BUF_ALIGN))
        [error] = await s.store.read_blobs([(other, s.blank())])
        expect(error is None, f"read_blobs answers {error!r} for {other!r}")
        await s.store.delete_blob(other)
        expect(await s.read(one) is None, f"deleted as {other!r}, it is still found as {one!r}")
        await s.store.write_blobs([(one, s.frame(number))])
        await s.store.commit(deletes=[other])
        await s.store.write_blobs_with_data_sync([(one, s.frame(number))])
        await s.store.commit([(other, s.frame(number + 1))])
        expect(await s.read(one) == number + 1, f"commit() under {other!r} is not found as {one!r}")


def _takers(s: Subject) -> list[Callable[[Any], Any]]:
    frame, store = s.frame(1), s.store
    return [
        lambda guid: store.read_blob(guid, s.blank()),
        lambda guid: store.write_blob(guid, frame),
        store.delete_blob,
        store.has_blob,
        lambda guid: store.has_blobs([guid]),
        store.checksum,
        store.stat_blob,
        lambda guid: store.read_blob_range(guid, 0, bytearray(BUF_ALIGN)),
        lambda guid: store.read_blobs([(guid, s.blank())]),
        lambda guid: store.write_blobs([(guid, frame)]),
        lambda guid: store.write_blobs_with_data_sync([(guid, frame)]),
        lambda guid: store.commit([(guid, frame)]),
        lambda guid: store.commit(deletes=[guid]),
    ]


@check("A guid of the wrong length: ValueError.")
async def guid_of_wrong_length(s: Subject) -> None:
    for take in _takers(s):
        for guid in (b"", bytes(15), bytes(17)):
            await refused(ValueError, take, guid)
    expect(await s.store.list_blobs() == [], "a refused call left a blob behind")


@check("A guid of the wrong type: TypeError.")
async def guid_of_wrong_type(s: Subject) -> None:
    for take in _takers(s):
        # A guid's text is left open: a store that makes a BlobGuid of what it is given takes it.
        for guid in (7, None, bytearray(16), [0] * 16):
            await refused(TypeError, take, guid)
    expect(await s.store.list_blobs() == [], "a refused call left a blob behind")


@check("The all-zero guid is a legal key.")
async def zero_guid(s: Subject) -> None:
    await s.store.write_blob(bytes(16), s.frame(1))
    await s.store.write_blob(b"\xff" * 16, s.frame(2))
    expect(await s.read(uuid.UUID(int=0)) == 1, "the blob under the all-zero guid is not there")
    names = sorted(await s.store.list_blobs())
    expect(names == [bytes(16), b"\xff" * 16], f"list_blobs gives {names}")
    await s.store.delete_blob(bytes(16))
    expect(await s.read(bytes(16)) is None, "the all-zero guid cannot be deleted")
    expect(await s.read(b"\xff" * 16) == 2, "deleting the all-zero guid deleted another blob")


@check("stats(): a frozen dataclass with at least the fields of the contract.")
async def stats_are_frozen(s: Subject) -> None:
    stats = s.raw.stats()
    expect(dataclasses.is_dataclass(stats), f"stats() gives {stats!r}")
    missing = [name for name in STATS_FIELDS if not hasattr(stats, name)]
    expect(not missing, f"stats() lacks {', '.join(missing)}")
    await refused(dataclasses.FrozenInstanceError, setattr, stats, "reads", 1)
    expect(stats.page_size == s.page_size, f"stats().page_size is {stats.page_size}")


@check("stats() counts blobs, reads and writes.", "own_stats")
async def stats_count(s: Subject) -> None:
    before = s.raw.stats()
    guids = [BlobGuid.random() for _ in range(3)]
    await s.store.write_blobs((guid, s.frame(1)) for guid in guids)
    await s.store.delete_blob(guids[0])
    await s.read(guids[1])
    after = s.raw.stats()
    expect(before.blobs == 0, f"an empty store says {before.blobs} blobs")
    expect(after.blobs == 2, f"stats().blobs is {after.blobs} where two are live")
    expect(after.reads > before.reads, "a read was not counted")
    expect(after.writes > before.writes, "a write was not counted")
    expect(after.bytes_read >= before.bytes_read + s.page_size, "bytes_read did not grow by a frame")
    expect(after.bytes_written >= before.bytes_written + 3 * s.page_size, "bytes_written grew too little")
