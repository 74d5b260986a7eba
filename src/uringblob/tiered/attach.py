"""How a tier begins: who has written to the remote store since, and what is not uploaded yet.

``docs/maintainers/tiered.md`` has the table of cases.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os

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
#: What a clean end is noted with may be followed at once by a group of the store's own.
_CLEAN_TRIES = 3


@dataclasses.dataclass
class Attached:
    """What a tier begins with."""

    record: TieRecord
    #: The remote store's groups name their writer: no tie needs to be written there.
    signed: bool
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
    clean = record is not None and record.is_clean(await _last_group(local))
    signatures = remote._signatures()
    found = await _tie_blob(remote) if signatures is None else _as_tie(signatures[0])
    new = TieRecord(found, os.urandom(TIE_SIZE) if signatures is None else _as_tie(signatures[1]))
    begin = functools.partial(Attached, new, signatures is not None)
    if record is not None and record.matches(found):
        attached = begin(users)
        if not clean:
            await _find_due(attached, local, remote, tombs)
        done = [name for name in tombs if tombstone_number(name) not in attached.tombstones]
        await local.commit([_tie_write(local, attached.record)], done)
        return attached
    if record is None and users and found == NO_TIE and not await remote.list_blobs():
        seeded = begin(users, set(users))  # a file store becomes a tier
        await local.commit([_tie_write(local, seeded.record)])
        return seeded
    if (users or tombs) and not discard_local and not clean:
        raise TierDiverged(
            f"another writer has written to {remote!r} since {local!r} was its tier, which has commits that may not "
            "have been uploaded: open the local store alone and save what is needed, then open the tier with "
            "discard_local=True, or with a new local store"
        )
    stale = {guid for guid in users if await stat_or_none(local, guid) != await stat_or_none(remote, guid)}
    adopted = begin([guid for guid in users if guid not in stale])
    await local.commit([_tie_write(local, adopted.record)], [*stale, *tombs])
    return adopted


async def _last_group(local: AsyncBlobStore) -> int:
    await local.flush()
    async with await local.snapshot() as snapshot:
        return snapshot.seq


async def _record(local: AsyncBlobStore) -> TieRecord | None:
    stat = await stat_or_none(local, TIE)
    return None if stat is None else TieRecord.unpacked(stat.meta)


def _as_tie(session: bytes) -> bytes:
    return session.ljust(TIE_SIZE, b"\0")


async def _tie_blob(remote: AsyncBlobStore) -> bytes:
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
    for _ in range(_CLEAN_TRIES):
        seq = await _last_group(local) + 1
        await local.commit([_tie_write(local, dataclasses.replace(record, clean=True, seq=seq))])
        if await _last_group(local) == seq:
            return  # and not a later one: the store made a group of its own meanwhile, to shorten its log


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
