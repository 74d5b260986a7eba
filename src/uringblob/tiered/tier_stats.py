"""What a tier counts."""

from __future__ import annotations

import dataclasses
import time

from uringblob.tiered.core import TierCore


@dataclasses.dataclass(frozen=True)
class TierStats:
    """What a tier counts beside its local store's :class:`~uringblob.StoreStats`."""

    #: Frames that the local store has.
    resident: int
    #: Blobs that were written or deleted and are not known to be uploaded.
    waiting: int
    #: The calls that changed them, the bytes of their frames, and for how long something has been waiting.
    waiting_changes: int
    waiting_bytes: int
    waiting_s: float
    #: Remote groups, and the frames and bytes in them.
    uploads: int
    uploaded_frames: int
    uploaded_bytes: int
    #: Uploads that failed, each of which was tried again.
    upload_failures: int
    #: Reads of users that found their frame in the local store, and those that did not.
    hits: int
    misses: int
    #: Frames read from the remote store: one for all readers that miss it together.
    fetched: int
    #: Frames taken out of the local store.
    evicted: int
    #: Fetched frames that the local store had no room for.
    not_kept: int
    #: Why nothing is uploaded any more; empty while all is well.
    stopped: str


def tier_stats(core: TierCore) -> TierStats:
    """Return what is known now; from any thread."""
    due = core.due.copy()
    used = core.residents.used
    return TierStats(
        resident=len(used),
        waiting=len(due),
        waiting_changes=len(set(due.values())),
        waiting_bytes=sum(guid in used for guid in due) * core.page_size,
        waiting_s=time.monotonic() - core.waiting_since_s if due else 0.0,
        uploads=core.uploads,
        uploaded_frames=core.uploaded_frames,
        uploaded_bytes=core.uploaded_frames * core.page_size,
        upload_failures=core.uploader.failures,
        hits=max(0, core.local.stats().reads - core.own_reads),
        misses=core.fetches.asked,
        fetched=core.fetches.count,
        evicted=core.evicted,
        not_kept=core.not_kept,
        stopped=str(core.uploader.stopped or ""),
    )
