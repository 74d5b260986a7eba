"""Commits on condition."""

from __future__ import annotations

import asyncio

from uringblob.buffers.checksum import frame_checksum
from uringblob.errors import ConditionFailed
from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect, refused
from uringblob.testing.conformance.subject import Subject


@check(
    "commit: guids in if_absent must not be there, else ConditionFailed names the guid and nothing is applied."
)
async def if_absent(s: Subject) -> None:
    old, new, gone = (BlobGuid.random() for _ in range(3))
    await s.store.commit([(old, s.frame(1))], if_absent=iter([old, bytes(new)]))
    await s.store.commit(deletes=[gone], if_absent=[gone])

    async def create(guid: BlobGuid, *absent: BlobGuid) -> None:
        await s.store.commit([(guid, s.frame(2))], [old] if guid != old else [], if_absent=absent)

    for guid, absent in ((old, [old]), (new, [gone, new, old])):
        error = await refused(ConditionFailed, create, guid, *absent)
        assert isinstance(error, ConditionFailed)
        expect(error.guid == old, f"the error names {error.guid}, not the blob that is there")
        expect(error.expected is None, f"the error expected {error.expected}, not that there is no blob")
        expect(error.found == frame_checksum(s.frame(1)), f"the error found {error.found}")
    expect(await s.read(old) == 1, "a refused commit changed a blob")
    expect(await s.store.list_blobs() == [old], "a refused commit left a blob behind")
    await s.store.delete_blob(old)
    await create(old, old)
    expect(await s.read(old) == 2, "a deleted blob was not created again")


@check("commit: guids in if_checksum must have that checksum, else nothing is applied.")
async def if_checksum(s: Subject) -> None:
    guid, other = BlobGuid.random(), BlobGuid.random()
    await s.store.write_blob(guid, s.frame(1))
    first = await s.store.checksum(guid)
    await s.store.commit([(guid, s.frame(2))], if_checksum={bytes(guid): first})

    async def replace(name: BlobGuid, checksum: int) -> None:
        await s.store.commit([(other, s.frame(3))], [guid], if_checksum={name: checksum})

    for name, found in ((guid, await s.store.checksum(guid)), (other, None)):
        error = await refused(ConditionFailed, replace, name, first)
        assert isinstance(error, ConditionFailed)
        told = (error.guid, error.expected, error.found)
        expect(told == (name, first, found), f"the error has {told}")
    expect(await s.read(guid) == 2, "a refused commit changed a blob")
    expect(await s.read(other) is None, "a refused commit left a blob behind")
    await replace(guid, await s.store.checksum(guid))
    expect(await s.store.list_blobs() == [other], "a commit whose condition holds was not applied")


@check("Of many that create one blob if_absent, one succeeds.", "own_commit")
async def created_once(s: Subject) -> None:
    for _ in range(5):
        guid, partner = BlobGuid.random(), BlobGuid.random()
        ends = await asyncio.gather(
            *(
                s.store.commit([(guid, s.frame(number)), (partner, s.frame(number))], if_absent=[guid])
                for number in range(16)
            ),
            return_exceptions=True,
        )
        won = [number for number, end in enumerate(ends) if end is None]
        expect(len(won) == 1, f"{len(won)} of 16 created it")
        wrong = [end for end in ends if not (end is None or isinstance(end, ConditionFailed))]
        expect(not wrong, f"the others got {wrong}")
        expect(await s.read(guid) == won[0], "it is not its creator's")
        expect(await s.read(partner) == won[0], "a refused commit was applied in part")


@check("Of many that replace one frame if_checksum, one succeeds.", "own_commit")
async def counted_once(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.commit([(guid, s.frame(0))])

    async def count() -> None:
        for _ in range(4):
            while True:
                seen = await s.read(guid) or 0
                try:
                    known = {guid: frame_checksum(s.frame(seen))}
                    await s.store.commit([(guid, s.frame(seen + 1))], if_checksum=known)
                except ConditionFailed:
                    await asyncio.sleep(0)
                else:
                    break

    await asyncio.gather(*(count() for _ in range(6)))
    expect(await s.read(guid) == 24, f"24 increments gave {await s.read(guid)}")
