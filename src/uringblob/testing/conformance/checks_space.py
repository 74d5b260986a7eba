"""Checks of ``vacuum``."""

from __future__ import annotations

from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject


@check("vacuum(max_time=None): gives unused space back, and changes no blob.")
async def vacuum_changes_nothing(s: Subject) -> None:
    guids = [BlobGuid.random() for _ in range(20)]
    await s.store.commit([(guid, s.frame(number)) for number, guid in enumerate(guids)])
    await s.store.commit(deletes=guids[::2])
    kept = dict(list(enumerate(guids))[1::2])
    await refused(ValueError, s.store.vacuum, -1.0)
    for max_time in (0.0, None, 60.0):
        stats = await s.store.vacuum(max_time)
        expect(stats.moved >= 0 <= stats.bytes_freed, f"it says {stats}")
        expect(set(await s.store.list_blobs()) == set(kept.values()), "blobs came or went")
        for number, guid in kept.items():
            expect(await s.read(guid) == number, "a blob has another frame")
    expect(stats.done, "with time enough it is not done")
