"""Stores that break one sentence each: the conformance suite must catch every one of them.

``caught_by`` names the check that is expected to, the first in the suite's order.
"""

from __future__ import annotations

import asyncio
import time

from uringblob import AsyncBlobStore, AsyncMemoryBlobStore, BlobGuid, BlobNotFound, BlobStore, MemoryBlobStore
from uringblob.buffers.views import (
    NO_CHECKSUMS,
    checked_commit,
    checked_writes,
    readable_view,
    writable_view,
)
from uringblob.errors import BlobStoreError
from uringblob.guid import guid_bytes

PAGE = 4096


class Sound(BlobStore):
    """Five methods, and nothing wrong with them."""

    page_size = PAGE

    def __init__(self):
        self.frames = {}

    def read_blob(self, guid, dst):
        key = guid_bytes(guid)
        with writable_view(dst, PAGE) as target:
            if key not in self.frames:
                raise BlobNotFound(key)
            target[:] = self.frames[key]

    def write_blob(self, guid, src):
        key = guid_bytes(guid)
        with readable_view(src, PAGE) as source:
            self.frames[key] = bytes(source)

    def delete_blob(self, guid):
        self.frames.pop(guid_bytes(guid), None)

    def list_blobs(self):
        return [BlobGuid(guid) for guid in list(self.frames)]

    def flush(self):
        pass


class SoundAsync(AsyncBlobStore):
    """The same, asynchronous."""

    page_size = PAGE

    def __init__(self):
        self.inner = Sound()

    async def read_blob(self, guid, dst):
        self.inner.read_blob(guid, dst)

    async def write_blob(self, guid, src):
        self.inner.write_blob(guid, src)

    async def delete_blob(self, guid):
        self.inner.delete_blob(guid)

    async def list_blobs(self):
        return self.inner.list_blobs()

    async def flush(self):
        pass


class Memory(MemoryBlobStore):
    def __init__(self):
        super().__init__(PAGE)


class OddPageSize(Sound):
    caught_by = "page_size_is_legal"
    page_size = 5000


class ForgetsDeletes(Sound):
    caught_by = "every_kind_of_guid"

    def delete_blob(self, guid):
        guid_bytes(guid)


class TakesBytesOnly(Sound):
    caught_by = "every_kind_of_guid"

    def write_blob(self, guid, src):
        if not isinstance(guid, bytes):
            raise TypeError
        super().write_blob(guid, src)


class AcceptsAnyLength(Sound):
    caught_by = "guid_of_wrong_length"

    def delete_blob(self, guid):
        self.frames.pop(bytes(guid) if isinstance(guid, bytes) else guid_bytes(guid), None)


class WrongTypeOfError(Sound):
    caught_by = "guid_of_wrong_type"

    def delete_blob(self, guid):
        try:
            super().delete_blob(guid)
        except TypeError as error:
            raise ValueError from error


class FalsyZero(Sound):
    caught_by = "zero_guid"

    def list_blobs(self):
        return [guid for guid in super().list_blobs() if any(guid)]


class SharesMemory(Sound):
    caught_by = "buffers_come_back"

    def write_blob(self, guid, src):
        super().write_blob(guid, src)
        if isinstance(src, bytearray):
            self.frames[guid_bytes(guid)] = src


class HoldsViews(Sound):
    caught_by = "buffers_come_back"

    def read_blob(self, guid, dst):
        target = writable_view(dst, PAGE)
        if guid_bytes(guid) not in self.frames:
            self.held = target
            raise BlobNotFound(guid_bytes(guid))
        target[:] = self.frames[guid_bytes(guid)]


class DropsTheTail(Sound):
    caught_by = "every_kind_of_guid"

    def read_blob(self, guid, dst):
        with writable_view(dst, PAGE) as target:
            if guid_bytes(guid) not in self.frames:
                raise BlobNotFound(guid_bytes(guid))
            target[:-512] = self.frames[guid_bytes(guid)][:-512]


class PadsShortFrames(Sound):
    caught_by = "buffer_of_wrong_length"

    def write_blob(self, guid, src):
        if isinstance(src, bytearray) and len(src) < PAGE:
            src = src.ljust(PAGE)
        super().write_blob(guid, src)


class ReadsFirst(Sound):
    """Fills a wrong buffer before it complains."""

    caught_by = "buffer_of_wrong_length"

    def read_blob(self, guid, dst):
        if isinstance(dst, bytearray) and guid in self.frames and len(dst) < PAGE:
            dst[:] = self.frames[guid][: len(dst)]
        super().read_blob(guid, dst)


class DirtyZeroes(Sound):
    caught_by = "zeroed_buffers"

    def alloc_blob_buf_zeroed(self):
        buf = super().alloc_blob_buf_zeroed()
        buf.view[-1] = 1
        return buf


class StaleReads(Sound):
    """Gives back the first frame ever written."""

    caught_by = "every_kind_of_guid"

    def write_blob(self, guid, src):
        key = guid_bytes(guid)
        first = self.frames.get(key)
        super().write_blob(guid, src)
        self.frames[key] = first or self.frames[key]


class TouchesDst(Sound):
    caught_by = "read_of_nothing"

    def read_blob(self, guid, dst):
        if guid_bytes(guid) not in self.frames:
            with writable_view(dst, PAGE) as target:
                target[:] = bytes(PAGE)
        super().read_blob(guid, dst)


class PlainKeyError(Sound):
    caught_by = "every_kind_of_guid"

    def read_blob(self, guid, dst):
        try:
            super().read_blob(guid, dst)
        except BlobNotFound as error:
            raise KeyError(guid) from error


class NamelessError(Sound):
    caught_by = "read_of_nothing"

    def read_blob(self, guid, dst):
        try:
            super().read_blob(guid, dst)
        except BlobNotFound as error:
            raise BlobNotFound(error.guid, "not found") from None


class DeleteComplains(Sound):
    caught_by = "delete"

    def delete_blob(self, guid):
        if guid_bytes(guid) not in self.frames:
            raise BlobNotFound(guid_bytes(guid))
        super().delete_blob(guid)


class ListsBytes(Sound):
    caught_by = "list_all"

    def list_blobs(self):
        return [bytes(name) for name in self.frames]


class HasEverything(Sound):
    caught_by = "delete"

    def has_blob(self, guid):
        guid_bytes(guid)
        return True


class FalseWhereEmpty(Sound):
    caught_by = "len_and_in"

    def __bool__(self):
        return len(self) > 0


class IteratesAsListed(Sound):
    caught_by = "iterate"

    def iter_blobs(self, after=None, limit=None):
        super().iter_blobs(after, limit)
        return iter(self.list_blobs())


class IteratesWhatIsThere(Sound):
    """Yields what has not been deleted meanwhile, by its place."""

    caught_by = "iterate_beside_changes"

    def iter_blobs(self, after=None, limit=None):
        sound = super().iter_blobs(after, limit)
        if len(self.frames) <= 12:
            return sound
        return (
            guid for place in range(len(self.frames)) for guid in sorted(self.list_blobs())[place : place + 1]
        )


class HasInAnotherOrder(Sound):
    caught_by = "has_many"

    def has_blobs(self, guids):
        return sorted(super().has_blobs(guids))


class RangeFromTheStart(Memory):
    caught_by = "read_range"

    def read_blob_range(self, guid, offset, dst):
        super().read_blob_range(guid, min(offset, 0), dst)


class RangeOutside(Sound):
    caught_by = "read_range_refused"

    def read_blob_range(self, guid, offset, dst):
        if offset == PAGE:
            return
        super().read_blob_range(guid, offset, dst)


class AlwaysDirty(Memory):
    caught_by = "needs_no_flush"

    def needs_flush(self):
        super().needs_flush()
        return True


class StaleChecksum(Sound):
    caught_by = "checksums"

    def checksum(self, guid):
        if not hasattr(self, "first"):
            self.first = super().checksum(guid)
        return self.first


class VerifyIsSilent(Sound):
    caught_by = "verify"

    def verify(self, progress=None, **options):
        return super().verify(**options)


class BackupCopiesAll(Sound):
    caught_by = "backup"

    def backup(self, target, progress=None, rate=None):
        for guid in target.list_blobs():
            target.delete_blob(guid)
        return super().backup(target, progress, rate)


class ChecksOneByOne(Sound):
    caught_by = "checked_before_applied"

    def write_blobs(self, writes):
        for guid, src in writes:
            self.write_blob(guid, src)


class FirstWriteWins(Sound):
    caught_by = "last_write_wins"

    def write_blobs(self, writes):
        super().write_blobs(list(writes)[::-1])


class RaisesForOne(Sound):
    caught_by = "read_many"

    def read_blobs(self, reads):
        answers = super().read_blobs(reads)
        for answer in answers:
            if isinstance(answer, BlobStoreError):
                raise answer
        return answers


class CommitsBoth(Memory):
    caught_by = "commit_of_both"

    def commit(self, writes=(), deletes=()):
        writes = {guid_bytes(guid): src for guid, src in writes}
        super().commit(writes.items(), [guid for guid in deletes if guid_bytes(guid) not in writes])


class CommitForgetsDeletes(Memory):
    caught_by = "commit"

    def commit(self, writes=(), deletes=()):
        deletes = list(deletes)
        super().commit(writes, deletes[:1] if len(deletes) == 2 else deletes)
        if len(deletes) == 2:
            self.write_blob(deletes[0], bytes(PAGE))


class CommitInPieces(Memory):
    caught_by = "commit_is_visible_at_once"

    def commit(self, writes=(), deletes=()):
        writes, deletes = checked_commit(writes, deletes, PAGE)
        for write in writes.items():
            self.write_blobs([write])
            time.sleep(1e-4)  # the fault itself: readers come in between
        super().commit((), deletes)


class IgnoresConditions(Memory):
    caught_by = "if_absent"

    def commit(self, writes=(), deletes=(), if_absent=(), if_checksum=None):
        super().commit(writes, deletes)


class ChecksOnlyThatThereIsAFrame(Memory):
    caught_by = "if_checksum"

    def commit(self, writes=(), deletes=(), if_absent=(), if_checksum=()):
        there = {guid: self.checksum(guid) for guid in if_checksum if self.has_blob(guid)}
        super().commit(writes, deletes, if_absent, {**dict(if_checksum), **there})


class ChecksBeforeItWrites(Memory):
    caught_by = "created_once"

    def commit(self, writes=(), deletes=(), if_absent=(), if_checksum=NO_CHECKSUMS):
        absent = list(if_absent)
        super().commit(if_absent=absent, if_checksum=if_checksum)
        if absent:
            time.sleep(1e-3)  # the fault itself: others come in between
        super().commit(writes, deletes)


class BeginsEachScrubAnew(Memory):
    caught_by = "verify_in_parts"

    def verify(self, progress=None, rate=None, deadline=None, since=None):
        if since is not None:
            BlobGuid(since)
        return super().verify(progress, rate, deadline)


class TearsFrames(Memory):
    """Writes a frame in two steps that a reader may come between."""

    caught_by = "no_mix"

    def write_blob(self, guid, src, meta=b""):
        old = self._frames.get(guid_bytes(guid))
        super().write_blob(guid, src, meta)
        if old is not None:
            new = self._frames[guid_bytes(guid)]
            self._frames[guid_bytes(guid)] = new._replace(frame=new.frame[:2048] + old.frame[2048:])
            time.sleep(1e-3)  # the fault itself: readers come in between
            self._frames[guid_bytes(guid)] = new


class SnapshotForgets(Memory):
    caught_by = "snapshot_stays"

    def snapshot(self):
        return BlobStore.snapshot(self)


class SnapshotMoves(Memory):
    caught_by = "snapshot_of_names"

    def snapshot(self):
        taken = super().snapshot()
        taken._frames = self._frames
        return taken


class SnapshotTakesWrites(Memory):
    caught_by = "snapshot_is_read_only"

    def snapshot(self):
        taken = super().snapshot()
        taken.write_blob = self.write_blob
        return taken


class SnapshotClosesItsStore(Memory):
    caught_by = "snapshot_stays"

    def snapshot(self):
        taken = super().snapshot()
        taken.close = self.close
        return taken


class SnapshotsEndTogether(Memory):
    caught_by = "snapshot_ends"

    def snapshot(self):
        self.taken = [*getattr(self, "taken", ()), super().snapshot()]
        self.taken[-1].close = lambda flush=True: [setattr(each, "_closed", True) for each in self.taken]
        return self.taken[-1]


class LosesABlobInAVacuum(Memory):
    caught_by = "vacuum_changes_nothing"

    def vacuum(self, max_time=None):
        self.delete_blob(self.list_blobs()[0])
        return super().vacuum(max_time)


class KeepsOldMetadata(Memory):
    """A blob that is written without metadata has that which it had."""

    caught_by = "metadata_is_kept"

    def write_blob(self, guid, src, meta=b""):
        old = self._frames.get(guid_bytes(guid))
        super().write_blob(guid, src, meta or (b"" if old is None else old.meta))


class TakesAnyMetadata(Memory):
    caught_by = "metadata_is_checked"

    def write_blob(self, guid, src, meta=b""):
        super().write_blob(guid, src, bytes(meta)[:255])


class OpenAfterClosing(Memory):
    caught_by = "later_calls"

    def close(self, flush=True):
        pass


class ComplainsTwice(Memory):
    caught_by = "closes_twice"

    def close(self, flush=True):
        if not flush:
            self._check_open()
        super().close(flush)


class MutableStats(Sound):
    caught_by = "stats_are_frozen"

    def stats(self):
        return {"page_size": PAGE}


class CountsNothing(Memory):
    caught_by = "stats_count"

    def stats(self):
        return BlobStore.stats(self)


class Amnesiac(Memory):
    """Says that it can be reopened, and cannot."""

    caught_by = "buffer_from_before_a_reopen"

    @classmethod
    def reopen(cls):
        return cls()


class VisibleTooEarly(AsyncMemoryBlobStore):
    caught_by = "commit_is_visible_at_once"

    def __init__(self):
        super().__init__(PAGE)

    async def commit(self, writes=(), deletes=()):
        writes, deletes = checked_commit(writes, deletes, PAGE)
        for write in writes.items():
            await super().write_blobs([write])
            await asyncio.sleep(0)
        await super().commit((), deletes)


class KeepsCancelledBuffers(AsyncMemoryBlobStore):
    """Goes on with the buffer after the cancelled call has raised."""

    caught_by = "cancelled_calls"

    def __init__(self):
        super().__init__(PAGE)

    async def write_blobs(self, writes):
        latest = checked_writes(writes, PAGE)
        task = asyncio.ensure_future(
            self._later([(guid, readable_view(src, PAGE)) for guid, src in latest.items()])
        )
        del latest
        await asyncio.shield(task)

    async def _later(self, writes):
        for _ in range(3):
            await asyncio.sleep(0)
        await super().write_blobs(writes)


class SwallowsCancel(AsyncMemoryBlobStore):
    caught_by = "cancelled_calls"

    def __init__(self):
        super().__init__(PAGE)

    async def read_blob(self, guid, dst):
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise BlobStoreError("cancelled") from None
        await super().read_blob(guid, dst)


class StopsClosing(AsyncMemoryBlobStore):
    caught_by = "cancelled_close"

    def __init__(self):
        super().__init__(PAGE)
        self._begun = False

    async def aclose(self, flush=True):
        if self._begun:
            return
        self._begun = True
        await asyncio.sleep(0)
        await super().aclose(flush)


def _all(base):
    found = [cls for cls in globals().values() if isinstance(cls, type) and issubclass(cls, base)]
    return [cls for cls in found if "caught_by" in vars(cls)]


BROKEN = _all(BlobStore)
BROKEN_ASYNC = _all(AsyncBlobStore)
