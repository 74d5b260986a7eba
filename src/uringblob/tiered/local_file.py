"""A tier's local store, opened without its tier: whether it is one, and what is known of it."""

from __future__ import annotations

import dataclasses

from uringblob.api.sync_store import BlobStore
from uringblob.errors import BlobNotFound
from uringblob.tiered.records import TIE, TieRecord, is_reserved


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """What a tier's local store shows of the tier."""

    #: Frames of users that are in it: not all of the tier's, where some were evicted.
    frames: int
    #: It was closed when all was uploaded, and has not changed since.
    uploaded: bool
    #: Commits of deletions that were not known to be uploaded.
    deletions: int


def tier_of(store: BlobStore) -> LocalFile | None:
    """Return what ``store`` shows of its tier; ``None`` if it is no tier's local store."""
    if not store.has_blob(TIE):
        return None
    with store.snapshot() as moment:
        try:
            record = TieRecord.unpacked(moment.stat_blob(TIE).meta)
        except BlobNotFound:
            return None  # it was deleted just now
        own = [guid for guid in moment.list_blobs() if is_reserved(guid)]
        deletions = len(own) - 1
        return LocalFile(len(moment.list_blobs()) - len(own), record.is_clean(moment.seq), deletions)
