"""What a store counts: one frozen object a call."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ReaderStats:
    """Readers in other processes that show one state of the store."""

    #: The number of the last durable group in that state; 0: one is just opening the store, or moving on.
    seq: int
    #: The processes, as far as ``/proc`` shows them to this one.
    pids: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class StoreStats:
    """What ``store.stats()`` returns: a snapshot that never changes afterwards.

    Plain data: it may be compared, pickled, and turned into a ``dict`` with
    ``dataclasses.asdict``.  Counters start at zero when the store is opened.  A store that has
    no such thing (a memory store has no file) leaves the field at its default.
    """

    #: The engine in use: ``"io_uring"``, ``"pread"``, ``"memory"``, or ``"custom"``.
    engine: str = "custom"
    #: Why this engine: requested by name, or which stage was refused with which errno.
    engine_reason: str = ""
    #: Whether frames bypass the page cache (``O_DIRECT``).
    direct_io: bool = False
    #: The frame size in bytes.
    page_size: int = 0

    #: The store file's format version; 0 where there is no file.
    format_version: int = 0
    #: The format's feature flags that are set in the file.
    features: tuple[str, ...] = ()
    #: When the file was made, in nanoseconds since 1970; 0 where that is not known.
    created_ns: int = 0
    #: The text that the file was given when it was made.
    label: str = ""

    #: Live blobs.
    blobs: int = 0
    #: The store file's length in bytes.
    file_bytes: int = 0
    #: Bytes that the file system has given the file, holes not counted.
    allocated_bytes: int = 0
    #: Bytes of the file that only the log may use: log space, in use or not.
    log_bytes: int = 0

    #: The limit for ``file_bytes`` (of a memory store, for the bytes of all frames); 0: there is none.
    max_bytes: int = 0

    #: Slots that hold the frame of a live blob.
    slots_live: int = 0
    #: Slots that the next write may take.
    slots_free: int = 0
    #: Slots that are neither yet: reserved, or waiting for the log and for readers to leave.
    slots_pending: int = 0
    #: Free slots whose blocks the file system has back: they are allocated as the file grows.
    slots_holes: int = 0
    #: Slots that only the log may use: log space, in use or not.
    slots_log: int = 0
    #: Those of ``slots_pending`` that only open snapshots keep.
    slots_held: int = 0
    #: Bytes of the frames that only open snapshots keep.
    held_bytes: int = 0
    #: Open snapshots.
    snapshots: int = 0
    #: Those of ``slots_pending`` that only readers in other processes keep, which show an older state.
    slots_kept: int = 0
    #: Bytes of the frames that only such readers keep.
    kept_bytes: int = 0
    #: Readers in other processes, by the state that they show; of a store that is open for writing.
    readers: tuple[ReaderStats, ...] = ()

    #: Frames requested for the registered pool.
    buffers: int = 0
    #: Frames that the kernel registered.
    buffers_registered: int = 0
    #: Frames of the pool that are leased now.
    buffers_leased: int = 0
    #: Why not all of ``buffers`` are registered; empty when they are.
    buffers_reason: str = ""
    #: Whether the pool lies on huge pages.
    buffers_huge: bool = False

    #: Read requests issued to the engine.
    reads: int = 0
    #: Write requests issued to the engine; a gathered write is one.
    writes: int = 0
    #: fsync and fdatasync requests issued.
    syncs: int = 0
    #: Bytes that those reads moved.
    bytes_read: int = 0
    #: Bytes that those writes moved.
    bytes_written: int = 0
    #: Calls of ``io_uring_enter``.
    ring_enters: int = 0
    #: Requests now queued or in the kernel.
    in_flight: int = 0
    #: Those of ``reads`` that a sync store's callers made in their own threads, by ``preadv``.
    reads_here: int = 0

    #: ``commit`` calls that returned.
    commits: int = 0
    #: Groups of log records made durable; concurrent calls share one.
    log_groups: int = 0
    #: Times the log was replaced by a snapshot.
    compactions: int = 0
    #: ``write_blobs_with_data_sync`` calls that were one gathered write linked to one fdatasync.
    batches_linked: int = 0
    #: ``write_blobs_with_data_sync`` calls that took several writes, then one fdatasync.
    batches_scattered: int = 0
    #: Frames that passed through a bounce frame because their memory was not aligned.
    bounces: int = 0

    #: Whether the store was opened with ``read_only=True``.
    read_only: bool = False
    #: The failure that poisoned the store; empty while it is sound.
    poisoned: str = ""
    #: What the opener should know: an unclean end, a group not served, a truncated file, a
    #: file that was deleted, moved or replaced while it is open.
    notes: tuple[str, ...] = ()

    @property
    def amplification(self) -> float:
        """Bytes of the file per byte of live blobs; 0.0 where there is no blob, or no file.

        ``docs/operators/durability.md`` has its usual values, and the fixed cost of a small store.
        """
        live_bytes = self.blobs * self.page_size
        return self.file_bytes / live_bytes if live_bytes else 0.0
