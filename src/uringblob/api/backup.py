"""``backup()``: copies a snapshot into another store, in steps that a crash may cut off anywhere.

What a crash, an error or a full disk leaves in the target is never taken for a complete backup:

* Into an open store, or into a file that is new, empty or incomplete: the blob :data:`INCOMPLETE` is committed
  before the first step and deleted by the last one.  Each step is a commit, so the next call goes on there.
* Into a file that holds an earlier, complete backup: the steps only write.  One flush at the end makes all of
  it durable, in one group of the log; until then the file is the earlier backup.  So a source that fails
  half-way does not take the earlier backup with it; the next call begins again.

A blob that cannot be read is an entry in the report, and what the target has of it stays.  The target is then
incomplete, or still the earlier backup.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Final, TypedDict

from uringblob.api.base import AnyBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.api.open_options import StorePath
from uringblob.api.pace import Pace
from uringblob.api.verify_report import Progress
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import Write
from uringblob.errors import BlobCorrupt, BlobStoreError, PageSizeMismatch, StoreClosed
from uringblob.guid import BlobGuid

#: An ``AsyncBlobStore``, which is made of the class below.
AsyncStore = Any

#: The blob that a target has while its backup is incomplete.
INCOMPLETE: Final = BlobGuid.of("uringblob: this backup is incomplete")
_TEXT: Final = b"uringblob: this backup is incomplete; run it again. The last step deletes this blob.\n"

#: What one step reads, then writes: large enough that its flush costs little.
_STEP_BYTES: Final = 16 << 20
_STEP_BLOBS: Final = 256


@dataclasses.dataclass(frozen=True)
class BackupReport:
    """What ``store.backup()`` returns."""

    #: Blobs that were written to the target.
    copied: int = 0
    #: Blobs that the target had already, with the same checksum.
    skipped: int = 0
    #: Blobs of the target that the source does not have.
    deleted: int = 0
    #: Bytes of the frames that were written.
    bytes: int = 0
    #: Each blob that could not be read, with the error.
    bad: tuple[tuple[BlobGuid, BlobStoreError], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the target is a complete copy."""
        return not self.bad

    def __str__(self) -> str:
        head = f"{self.copied} blobs copied, {self.skipped} there already, {self.deleted} deleted"
        return "\n".join([head, *(f"{guid} not copied: {error}" for guid, error in self.bad)])


class AsyncBackups(AnyBlobStore):
    """The part of :class:`AsyncBlobStore` that makes backups."""

    async def backup(
        self, target: AsyncBackups | StorePath, progress: Progress | None = None, rate: float | None = None
    ) -> BackupReport:
        """Copy a snapshot of this store into ``target``, and verify it on the way.

        ``target`` is an open store of the same kind (sync or async), which nothing else changes meanwhile, or,
        for a file store, the path of a file, which is made if there is none.  What it has with the same
        checksum and metadata is not copied, what it has beyond is deleted.  Calling it again goes on, or brings an
        earlier backup up to date.

        Until it is complete, a new target holds a blob ``uringblob.INCOMPLETE``, and opening a file that has
        it is noted in ``stats().notes``.  A file with a complete backup stays that backup, whatever
        happens, until this one is complete and durable.

        A blob that cannot be read is an entry of the report's ``bad``; the others are copied, but the target
        is incomplete, or still the earlier backup.

        :param progress: called as ``progress(done, total)``, in blobs.
        :param rate: bytes per second to copy at most.
        :raises PageSizeMismatch: the target has another frame size.
        :raises BlobStoreError: the target failed; calling it again goes on.
        :raises ValueError: the target is this store.
        """
        self._check_open()
        store: AsyncStore = self
        pace = Pace(rate, None, store._now)
        if target is self:
            raise ValueError(f"{self!r} cannot be backed up into itself: give another store")
        async with await store.snapshot() as snapshot:
            if isinstance(target, AsyncBackups):
                return await _Backup(snapshot, target, progress, pace).run()
            file = await self._open_backup(target)
            try:
                replaces = await _holds_backup(file)
                return await _Backup(snapshot, file, progress, pace, replaces=replaces).run()
            finally:
                await file.aclose(flush=False)  # a complete backup is durable, another one is dropped

    async def _open_backup(self, path: StorePath) -> AsyncStore:
        raise takes_no_path(self, path)


def takes_no_path(store: AnyBlobStore, target: object) -> TypeError:
    """Return the error of a backup of ``store`` into what is no store of its kind."""
    return TypeError(
        f"{type(store).__name__} is backed up into an open store of the same kind, sync or async (only a file "
        f"store also takes a path), not into {target!r}"
    )


class FileOptions(TypedDict):
    """Options of opening a backup's file."""

    page_size: int
    engine: str


def file_options(path: StorePath, source_path: str, page_size: int, engine: str) -> FileOptions:
    """Return the options of opening ``path`` for a backup of the store at ``source_path``.

    :raises ValueError: the two are one file.
    """
    with contextlib.suppress(FileNotFoundError):
        if os.path.samefile(path, source_path):
            raise ValueError(f"{source_path} cannot be backed up into itself: give another path")
    return {"page_size": page_size, "engine": "pread" if engine == "pread" else "auto"}


class _Backup:
    """One run, from a snapshot into an open store.

    :param replaces: the target holds an earlier backup, which stays until this one is complete; otherwise
        each step is durable.
    """

    def __init__(
        self,
        source: AsyncStore,
        target: AsyncStore,
        progress: Progress | None,
        pace: Pace,
        *,
        replaces: bool = False,
    ) -> None:
        if source.page_size != target.page_size:
            raise PageSizeMismatch(
                f"{target!r} cannot hold frames of {source.page_size} bytes: back up into a store of that size"
            )
        self._source, self._target = source, target
        self._progress, self._pace = progress, pace
        self._replaces = replaces
        self._copied = self._skipped = 0
        self._bad: list[tuple[BlobGuid, BlobStoreError]] = []

    async def run(self) -> BackupReport:
        """Copy what the target lacks, then delete what it has beyond."""
        source, target = self._source, self._target
        names = [guid for guid in await source.list_blobs() if guid != INCOMPLETE]
        if await source.has_blob(INCOMPLETE):
            text = f"{source!r} is itself an incomplete backup: run that backup again first"
            self._bad.append((INCOMPLETE, BlobStoreError(text)))
        if not self._replaces:
            await target.commit([(INCOMPLETE, _TEXT.ljust(target.page_size, b"\0"))])
        most = max(1, min(_STEP_BLOBS, _STEP_BYTES // source.page_size))
        step = self._pace.frames_at_once(source.page_size, most)
        frames = [target.alloc_blob_buf_uninit() for _ in range(min(step, len(names)))]
        for start in range(0, len(names), step):
            await self._copy(names[start : start + step], frames)
            if self._progress is not None:
                self._progress(min(start + step, len(names)), len(names))
        if self._replaces and self._bad:
            return BackupReport(bad=tuple(self._bad))  # what was written is dropped when the file is closed
        beyond = await self._beyond()
        await self._finish(beyond)
        size_bytes = self._copied * source.page_size
        return BackupReport(self._copied, self._skipped, len(beyond), size_bytes, tuple(self._bad))

    async def _copy(self, names: Sequence[BlobGuid], frames: Sequence[AlignedBlobBuf]) -> None:
        """Copy those of ``names`` that the target lacks."""
        source, target = self._source, self._target
        wanted = await self._missing(names)
        await target._pause(self._pace.delay_s(len(wanted) * source.page_size) or 0)
        pairs = list(zip(wanted, frames, strict=False))
        errors = await source.read_blobs(pairs)
        for (guid, frame), read_error in zip(pairs, errors, strict=True):
            error = read_error or self._compare(guid, frame, wanted[guid].checksum)
            if error is not None:
                self._bad.append((guid, error))
                del wanted[guid]
            await target._pause()
        writes = [_write(guid, frame, wanted[guid].meta) for guid, frame in pairs if guid in wanted]
        if not writes:
            return
        await (target.write_blobs(writes) if self._replaces else target.commit(writes))
        for guid, stat in wanted.items():
            if await target.stat_blob(guid) != stat:
                raise BlobCorrupt(f"blob {guid}: {target!r} has other bytes than were written to it", guid)
        self._copied += len(writes)

    def _compare(self, guid: BlobGuid, frame: AlignedBlobBuf, checksum: int) -> BlobCorrupt | None:
        with frame.view as view:
            if frame_checksum(view) == checksum:
                return None
        return BlobCorrupt(f"blob {guid}: the bytes in {self._source!r} are not those written", guid)

    async def _missing(self, names: Sequence[BlobGuid]) -> dict[BlobGuid, BlobStat]:
        """Return those of ``names`` that the target lacks or has otherwise, with their checksum and metadata."""
        missing: dict[BlobGuid, BlobStat] = {}
        for guid, there in zip(names, await self._target.has_blobs(names), strict=True):
            try:
                stat = await self._source.stat_blob(guid)
            except StoreClosed:
                raise
            except BlobStoreError as error:
                self._bad.append((guid, error.with_traceback(None)))
                continue
            if there and await self._target_has(guid, stat):
                self._skipped += 1
            else:
                missing[guid] = stat
        return missing

    async def _target_has(self, guid: BlobGuid, stat: BlobStat) -> bool:
        try:
            return bool(await self._target.stat_blob(guid) == stat)
        except BlobCorrupt:
            return False  # a store that reads the frame for it

    async def _beyond(self) -> list[BlobGuid]:
        """Return what the target has and the source does not."""
        beyond: list[BlobGuid] = []
        names = [guid for guid in await self._target.list_blobs() if guid != INCOMPLETE]
        for start in range(0, len(names), _STEP_BLOBS):
            part = names[start : start + _STEP_BLOBS]
            there = await self._source.has_blobs(part)
            beyond += [guid for guid, is_there in zip(part, there, strict=True) if not is_there]
            await self._target._pause()
        return beyond

    async def _finish(self, beyond: Sequence[BlobGuid]) -> None:
        """Delete ``beyond``, and make the target a complete backup if it is one."""
        target = self._target
        if self._replaces:
            for guid in beyond:
                await target.delete_blob(guid)
            await target.flush()
            return
        if beyond:
            await target.commit(deletes=beyond)
        if not self._bad:
            # A commit of its own: that of a custom store may not be atomic.
            await target.commit(deletes=[INCOMPLETE])


def _write(guid: BlobGuid, frame: AlignedBlobBuf, meta: bytes) -> Write:
    # A store that keeps no metadata takes pairs only.
    return (guid, frame, meta) if meta else (guid, frame)


async def _holds_backup(store: AsyncStore) -> bool:
    """Whether ``store`` holds blobs, and no backup that is incomplete."""
    return not await store.has_blob(INCOMPLETE) and bool(await store.list_blobs())
