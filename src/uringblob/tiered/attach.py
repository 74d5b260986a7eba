"""How a tier begins: who has written to the remote store since, and what is not uploaded yet.

``docs/maintainers/tiered.md`` has the table of cases.
"""

from __future__ import annotations

import dataclasses
import errno

from uringblob.api.async_store import AsyncBlobStore
from uringblob.errors import BlobStoreIOError, PageSizeMismatch, TierDiverged
from uringblob.tiered.records import (
    NO_TIE,
    TIE,
    TIE_SIZE,
    TieRecord,
    guids_of_tombstone,
    is_reserved,
    tombstone_number,
)
from uringblob.tiered.upload import stat_or_none

#: Names that are compared between two pauses.
_AT_ONCE = 256


@dataclasses.dataclass
class Attached:
    """What a tier begins with."""

    record: TieRecord
    #: User blobs that the local store has.
    resident: list[bytes]
    #: Those of which the two stores may say different things.
    due: set[bytes] = dataclasses.field(default_factory=set)
    #: For each tombstone its number, and what it names.
    tombstones: dict[int, list[bytes]] = dataclasses.field(default_factory=dict)


async def attach(local: AsyncBlobStore, remote: AsyncBlobStore, *, discard_local: bool) -> Attached:
    """Compare the stores, and note in the local one that they belong together.

    :raises TierDiverged: both have what the other lacks.
    :raises PageSizeMismatch: their frames differ in size.
    """
    if local.page_size != remote.page_size:
        raise PageSizeMismatch(
            f"a tier's stores have frames of one size: {local!r} has {local.page_size} bytes, "
            f"{remote!r} has {remote.page_size}; make one of them anew"
        )
    names = [bytes(guid) for guid in await local.list_blobs()]
    users = [guid for guid in names if not is_reserved(guid)]
    tombs = [guid for guid in names if is_reserved(guid) and guid != TIE]
    record = await _record(local)
    found = await _remote_tie(remote)
    if record is not None and record.matches(found):
        attached = Attached(TieRecord.new(found), users)
        if not record.clean:
            await _find_due(attached, local, remote, tombs)
        done = [name for name in tombs if tombstone_number(name) not in attached.tombstones]
        await local.commit([_tie_write(local, attached.record)], done)
        return attached
    if record is None and users and found == NO_TIE and not await remote.list_blobs():
        seeded = Attached(TieRecord.new(found), users, set(users))  # a file store becomes a tier
        await local.commit([_tie_write(local, seeded.record)])
        return seeded
    if users and not discard_local and not (record is not None and record.clean):
        raise TierDiverged(
            f"another writer has written to {remote!r} since {local!r} was its tier, which has commits that may not "
            "have been uploaded: open the local store alone and save what is needed, then open the tier with "
            "discard_local=True, or with a new local store"
        )
    stale = {guid for guid in users if await stat_or_none(local, guid) != await stat_or_none(remote, guid)}
    adopted = Attached(TieRecord.new(found), [guid for guid in users if guid not in stale])
    await local.commit([_tie_write(local, adopted.record)], [*stale, *tombs])
    return adopted


async def _record(local: AsyncBlobStore) -> TieRecord | None:
    stat = await stat_or_none(local, TIE)
    return None if stat is None else TieRecord.unpacked(stat.meta)


async def _remote_tie(remote: AsyncBlobStore) -> bytes:
    stat = await stat_or_none(remote, TIE)
    if stat is None:
        return NO_TIE
    if len(stat.meta) != TIE_SIZE:
        raise BlobStoreIOError(errno.EINVAL, f"{remote!r} was written by a newer tier: use that release")
    return stat.meta


def _tie_write(local: AsyncBlobStore, record: TieRecord) -> tuple[bytes, bytes, bytes]:
    return TIE, bytes(local.page_size), record.packed()


async def note_clean(local: AsyncBlobStore, record: TieRecord) -> None:
    """Note that everything is uploaded, so that the next opening need not compare."""
    await local.commit([_tie_write(local, dataclasses.replace(record, clean=True))])


async def _find_due(
    attached: Attached, local: AsyncBlobStore, remote: AsyncBlobStore, tombs: list[bytes]
) -> None:
    """Find what is not uploaded: blobs that differ, and blobs that a tombstone names and only the remote has."""
    for count, guid in enumerate(attached.resident, 1):
        if await stat_or_none(local, guid) != await stat_or_none(remote, guid):
            attached.due.add(guid)
        if count % _AT_ONCE == 0:
            await local._pause()
    here = set(attached.resident)
    frame = bytearray(local.page_size)
    for name in tombs:
        await local.read_blob(name, frame)
        named = [guid for guid in guids_of_tombstone(frame) if guid not in here]
        if gone := [guid for guid in named if await remote.has_blob(guid)]:
            attached.tombstones[tombstone_number(name)] = gone
            attached.due.update(gone)
