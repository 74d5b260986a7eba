"""``uringblob repair``: save what can be saved of a damaged store into a new one.

By default a blob is saved under its newest readable record, or not at all: where that record's frame is
damaged, an older frame of the blob may be intact, but it is data that was replaced, so it is saved only if asked for.
Where a group is missing, any blob whose record is older may have been replaced or deleted by that group:
these are saved, and named as ``unproved``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
from collections.abc import Callable, Iterator

from uringblob.api.sync_store import BlobStore
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.guid import BlobGuid
from uringblob.salvage.history import Gap, History, Version
from uringblob.salvage.scan import Source, choose_store, scan
from uringblob.store.file import open_locked
from uringblob.sync.file_store import FileBlobStore

_BATCH_BYTES = 16 << 20
_BATCH_FRAMES = 64

#: Called with the number of blobs that were handled, and of all.
Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True)
class LostBlob:
    """A blob whose newest readable record names a frame that is damaged."""

    guid: BlobGuid
    slot: int
    offset: int
    why: str


@dataclasses.dataclass(frozen=True)
class RepairReport:
    """What was saved, and what was not.

    ``unproved`` blobs were saved as their newest readable record says, but a missing group may have replaced or
    deleted them; ``older`` ones were saved in a version before the damaged one.  ``gaps`` are the groups that
    are missing up to ``last_group``, the last one that is known to have happened; ``end_known`` is false if
    nothing tells whether there was a later one.  ``notes`` say what else is damaged.
    """

    page_size: int
    saved: int
    lost: tuple[LostBlob, ...]
    unproved: tuple[BlobGuid, ...]
    older: tuple[BlobGuid, ...]
    gaps: tuple[Gap, ...]
    last_group: int
    end_known: bool
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every blob of the store was certainly saved as it last was."""
        return self.end_known and not (self.lost or self.older or self.gaps)


def repair(
    path: str,
    target: str,
    *,
    older: bool = False,
    store_id: bytes | None = None,
    engine: str = "auto",
    lock_timeout: float = 5.0,
    progress: Progress | None = None,
) -> RepairReport:
    """Save what can be saved of the store at ``path``, which is only read, into a new store at ``target``.

    :param older: of a blob whose newest frame is damaged, save the newest one that is intact.
    :param store_id: which store to save, where log blocks of several stand in the file.
    :raises FileExistsError: something is at ``target``.
    :raises StoreLocked: a writer has the store open.
    :raises StoreCorrupt: nothing of a store was found; ``target`` was not made.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    file = asyncio.run(open_locked(path, read_only=True, lock_timeout=lock_timeout, create=None))
    try:
        saving = Salvage(Source(file), store_id)
        size, label = saving.page_size, saving.label
        with FileBlobStore.open(target, page_size=size, label=label, engine=engine) as store:
            return saving.save(store, older=older, progress=progress)
    finally:
        file.close()


class Salvage:
    """What was found in a damaged file, ready to be saved."""

    def __init__(self, source: Source, wanted: bytes | None = None) -> None:
        self._source = source
        superblocks = [s for s in source.superblocks() if wanted in (None, s.store_id)]
        found = scan(source, superblocks)
        self.store_id, self.page_size = choose_store(source, superblocks, found, wanted)
        self._superblocks = superblocks
        self.label = superblocks[0].label.decode(errors="ignore") if superblocks else ""
        self.history = History(found, self.store_id, superblocks)
        self._room = memoryview(bytearray(self.page_size))
        self.history.settle_last_group(lambda version: not self._read(version, self._room))

    def _read(self, version: Version, room: memoryview) -> str:
        """Read a frame; return what is wrong with it, or ""."""
        why = self._source.read_into(version.slot * self.page_size, room)
        if not why and frame_checksum(room) != version.checksum:
            why = "its checksum does not match"
        return why

    def save(
        self, target: BlobStore, *, older: bool = False, progress: Progress | None = None
    ) -> RepairReport:
        """Write every blob whose frame is intact into ``target``, durably, a bounded batch at a time."""
        blobs = self.history.newest()
        gaps = self.history.gaps()
        newest_gap = gaps[-1][1] if gaps else 0
        lost: dict[BlobGuid, LostBlob] = {}
        unproved: list[BlobGuid] = []
        saved = _Batches(target, self.page_size)
        in_order = sorted(blobs.items(), key=lambda blob: blob[1].slot)
        for done, (raw_guid, version) in enumerate(in_order, 1):
            guid, buf = BlobGuid(raw_guid), saved.next_buffer()
            why = self._read(version, buf.view)
            if why:
                lost[guid] = LostBlob(guid, version.slot, version.slot * self.page_size, why)
            else:
                saved.add(guid, version.meta)
                if version.seq < newest_gap:
                    unproved.append(guid)
            if progress is not None:
                progress(done, len(blobs))
        replaced = list(self._save_older(lost, saved)) if older and lost else []
        saved.commit()
        saved.release()
        for guid in replaced:
            del lost[guid]
        return RepairReport(
            self.page_size,
            saved.count,
            tuple(lost.values()),
            tuple(unproved),
            tuple(replaced),
            tuple(gaps),
            self.history.last,
            bool(self._superblocks),
            tuple(self._notes(gaps)),
        )

    def _save_older(self, lost: dict[BlobGuid, LostBlob], saved: _Batches) -> Iterator[BlobGuid]:
        for raw_guid, versions in self.history.older(lost).items():
            for version in versions:
                if not self._read(version, saved.next_buffer().view):
                    saved.add(BlobGuid(raw_guid), version.meta)
                    yield BlobGuid(raw_guid)
                    break

    def _notes(self, gaps: list[Gap]) -> Iterator[str]:
        if not self._superblocks:
            yield (
                f"both superblocks are damaged: group {self.history.last} is the last one that was found, and nothing "
                "tells whether there was a later one"
            )
        for unit in self.history.damaged_snapshots(gaps):
            yield (
                f"of the map's snapshot after group {unit.seq}, {unit.count - len(unit.blocks)} of {unit.count} "
                "log blocks are damaged: blobs that were last written before it may be missing, without a name"
            )
        if self.history.left_out:
            yield self.history.left_out


class _Batches:
    """Frames in leased buffers, committed when all buffers are full."""

    def __init__(self, target: BlobStore, page_size: int) -> None:
        self._target = target
        self._most = max(1, min(_BATCH_FRAMES, _BATCH_BYTES // page_size))
        self._buffers: list[AlignedBlobBuf] = []
        self._guids: list[BlobGuid] = []
        self._metas: list[bytes] = []
        self.count = 0

    def next_buffer(self) -> AlignedBlobBuf:
        """Return the buffer for the next frame; the same one until ``add``."""
        if len(self._guids) == self._most:
            self.commit()
        if len(self._guids) == len(self._buffers):
            self._buffers.append(self._target.alloc_blob_buf_uninit())
        return self._buffers[len(self._guids)]

    def add(self, guid: BlobGuid, meta: bytes) -> None:
        """The next buffer holds this blob's frame; ``meta`` is its metadata."""
        self._guids.append(guid)
        self._metas.append(meta)

    def commit(self) -> None:
        """Make the frames durable."""
        if self._guids:
            filled = self._buffers[: len(self._guids)]
            self._target.commit(zip(self._guids, filled, self._metas, strict=True))
        self.count += len(self._guids)
        self._guids.clear()
        self._metas.clear()

    def release(self) -> None:
        """Give the buffers back."""
        for buf in self._buffers:
            buf.release()
