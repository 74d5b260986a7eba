"""What a store in a bucket counts."""

from __future__ import annotations

import dataclasses

from uringblob.remote.core import Core


@dataclasses.dataclass(frozen=True)
class RemoteStats:
    """What a store in a bucket counts beside :class:`~uringblob.StoreStats`, since it was opened."""

    #: Requests, each try counted, and of them those that repeat one that failed.  What the bucket's own client
    #: repeats by itself is in neither.
    requests: int
    retries: int
    #: Bytes of objects: frames, groups and maps.
    bytes_read: int
    bytes_written: int
    #: The last group of the log that it shows, and the groups that it made.
    seq: int
    groups: int
    #: Maps that it wrote, objects that it deleted, and frames that wait for that.
    compactions: int
    collected: int
    garbage: int
    #: Which writer took the store over; empty while none has.
    fenced: str


def remote_stats(core: Core) -> RemoteStats:
    """Return what is known now; from any thread."""
    requests, writer, keeper = core.requests, core.writer, core.keeper
    return RemoteStats(
        requests=requests.attempts,
        retries=requests.retries,
        bytes_read=requests.bytes_read,
        bytes_written=requests.bytes_written,
        seq=core.history.seq,
        groups=0 if writer is None else writer.groups,
        compactions=0 if keeper is None else keeper.compactions,
        collected=0 if keeper is None else keeper.collected,
        garbage=0 if writer is None else len(writer.dead),
        fenced="" if writer is None or writer.fenced is None else str(writer.fenced),
    )
