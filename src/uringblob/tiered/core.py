"""What a tier does: changes of the local store, their upload, eviction, and frames that are fetched.

``docs/maintainers/tiered.md`` has the invariant and its proof; what a comment here calls a rule stands there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.api.uncancellable import uncancellable
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import Write, readable_view
from uringblob.errors import BlobNotFound, BlobStoreError, BlobStoreIOError, ConditionFailed, StorePoisoned
from uringblob.logs import logger
from uringblob.tiered.attach import Attached, attach, note_clean
from uringblob.tiered.fetches import Fetches
from uringblob.tiered.order import Order
from uringblob.tiered.records import TIE, tombstone_name
from uringblob.tiered.residents import Residents
from uringblob.tiered.tombstones import Tombstones
from uringblob.tiered.upload import Upload
from uringblob.tiered.uploader import Uploader
from uringblob.tiered.view import View

#: Frames that one eviction takes out at most: one device flush for all of them.
EVICTED_AT_ONCE = 64

#: Makes a change of the local store, given the tombstones that belong to it.
Apply = Callable[[list[Write]], Awaitable[None]]


class TierCore:
    """Two stores, and what is known of the difference between them.

    :param frames_max: how many frames may be local; ``None``: any number.
    """

    def __init__(self, local: AsyncBlobStore, remote: AsyncBlobStore, frames_max: int | None) -> None:
        self.local, self.remote = local, remote
        self.page_size = local.page_size
        self.order = Order()
        self.residents = Residents(frames_max)
        self.tombstones = Tombstones()
        self.view = View(local, remote, self.tombstones.by_guid)
        self.uploader = Uploader(self._upload, repr(remote))
        self.fetches = Fetches(local, remote, self._keep)
        #: What may differ between the stores, with the number of its last change.
        self.due: dict[bytes, int] = {}
        self._changes = itertools.count(1)
        #: Held while something is taken out of the local store that is no change, and while a snapshot is taken.
        self.removing = asyncio.Lock()
        self._attached: Attached
        self._tie_uploaded = False
        self.closing = False
        self.blobs = 0
        self.uploads = self.uploaded_frames = self.evicted = self.not_kept = 0
        #: Reads of the local store that no user has asked for.
        self.own_reads = 0
        #: No change that is waiting was made before.
        self.waiting_since_s = 0.0

    async def attach(self, *, discard_local: bool) -> None:
        """Begin: find what an earlier process has not uploaded, and go on with it."""
        self._attached = found = await attach(self.local, self.remote, discard_local=discard_local)
        self._tie_uploaded = found.signed
        self.residents.add(found.resident)
        self.tombstones.adopt(found.tombstones)
        self._touch(found.due)
        self.blobs = len(await self.view.names())
        self.own_reads = self.local.stats().reads
        if found.due:
            self.uploader.request()

    # -- changes ------------------------------------------------------------------------------

    async def change(
        self,
        written: Collection[bytes],
        deleted: Sequence[bytes],
        conditions: Sequence[tuple[bytes, int | None]],
        apply: Apply,
    ) -> None:
        """Make a change of the local store, wholly or not at all, and have it uploaded."""
        self.uploader.check()
        await uncancellable(self._change(written, deleted, conditions, apply))
        self.uploader.request()

    async def _change(
        self,
        written: Collection[bytes],
        deleted: Sequence[bytes],
        conditions: Sequence[tuple[bytes, int | None]],
        apply: Apply,
    ) -> None:
        keys = {*written, *deleted, *(guid for guid, _ in conditions)}
        async with self._room_for(len(written)), self.order.exclusive(keys):
            await self._check_conditions(conditions)
            there = [guid for guid in deleted if await self.view.has(guid)]
            before = len(there) + await self._count(written)
            doubtful = [guid for guid in there if guid in self.due or await self.remote.has_blob(guid)]
            tombstones, writes = self.tombstones.new(doubtful, self.page_size)
            # Before, because an upload may begin the moment that it is visible; and after, because one that
            # began before that moment may end later.
            self._touch((*written, *there))
            error: Exception | None = None
            try:
                await apply(writes)
            except Exception as failure:  # noqa: BLE001 - raised below
                error = failure
            await self._settle((*written, *there), tombstones)
            self.blobs += await self._count((*written, *there)) - before
            if error is not None:
                raise error

    async def _check_conditions(self, conditions: Sequence[tuple[bytes, int | None]]) -> None:
        for guid, expected in conditions:
            try:
                found: int | None = (await self.view.stat(guid)).checksum
            except BlobNotFound:
                found = None
            if found != expected:
                raise ConditionFailed(guid, expected, found)

    async def _count(self, guids: Iterable[bytes]) -> int:
        return sum([await self.view.has(guid) for guid in guids])

    def _touch(self, guids: Iterable[bytes]) -> None:
        if not self.due:
            self.waiting_since_s = time.monotonic()
        self.due.update(dict.fromkeys(guids, next(self._changes)))

    async def _settle(self, changed: Collection[bytes], tombstones: dict[int, list[bytes]]) -> None:
        """Note what a change has left behind, which may have failed half-way."""
        self._touch(changed)
        for number, guids in tombstones.items():
            there = await self.local.has_blob(tombstone_name(number))
            self.tombstones.settle(number, guids, there=there)
        for guid in changed:
            if await self.local.has_blob(guid):
                self.residents.add([guid])
            else:
                self.residents.remove([guid])

    # -- uploads ------------------------------------------------------------------------------

    async def _upload(self) -> None:
        """Upload the present moment, and then remove the tombstones that are not needed any more."""
        if self.due or self.tombstones.there:
            await self._upload_moment()
        try:
            async with self.removing:
                await self._remove(())
        except (BlobStoreIOError, StorePoisoned) as error:
            logger.warning("%r: tombstones stay for now: %s", self, error, extra={"event": "tombstones_stay"})

    async def _upload_moment(self) -> None:
        due, tombstones, began_s = dict(self.due), list(self.tombstones.there), time.monotonic()
        async with await self.local.snapshot() as snapshot:
            moment = View(snapshot, self.remote, dict(self.tombstones.by_guid))
            guids = list(self.due)  # with those that became visible since
            if self.local.needs_flush():
                await self.local.flush()  # what is uploaded must not be lost here
            tie = (TIE, bytes(self.page_size), self._attached.record.own)
            upload = Upload(moment, [] if self._tie_uploaded else [tie])
            try:
                await upload.run(guids)
            finally:
                self.own_reads += upload.reads
        # From here on nothing waits.
        self._tie_uploaded |= upload.groups > 0
        self.uploads += upload.groups
        self.uploaded_frames += upload.frames
        for guid, number in due.items():
            if self.due.get(guid) == number and guid not in self.order:
                del self.due[guid]
        self.waiting_since_s = began_s  # what still waits was changed since
        self.tombstones.uploaded(tombstones)

    async def _remove(self, victims: Sequence[bytes]) -> None:
        """Take victims out of the local store, and with them all obsolete tombstones.

        One that outlived the eviction of a blob that was written again would delete it.
        """
        obsolete = list(self.tombstones.obsolete)
        if victims or obsolete:
            await self.local.commit(deletes=[*victims, *map(tombstone_name, obsolete)])
            self.tombstones.removed(obsolete)

    # -- room ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _room_for(self, more: int) -> AsyncIterator[None]:
        """Keep room for ``more`` frames, waiting for uploads if need be.

        Also where they replace others that are local: so nothing is waited for by a change that others wait for.
        """
        residents = self.residents
        residents.check_fits(more, self.page_size)
        while not await self._evict(more):
            if not self.due:
                await self.order.next_end()  # whose frames may go then
                continue
            try:
                await self.uploader.wait()
            except BlobStoreIOError as error:
                waiting = f"{len(self.due)} changes wait for the remote store ({error})"
                raise residents.no_room(waiting, self.page_size) from error
        residents.reserved += more
        try:
            yield
        finally:
            residents.reserved -= more

    async def _evict(self, more: int) -> bool:
        """Take out uploaded frames until there is room for ``more``; return whether there is."""

        def may_go(guid: bytes) -> bool:
            return guid not in self.due and guid not in self.order

        while excess := self.residents.excess(more):
            victims = self.residents.victims(min(excess, EVICTED_AT_ONCE), may_go)
            if not victims:
                return False
            async with self.order.exclusive(victims), self.removing:
                await self._remove(victims)
                self.residents.remove(victims)
                self.evicted += len(victims)
        return True

    async def _keep(self, guid: bytes, frame: AlignedBlobBuf, stat: BlobStat) -> None:
        """Keep a fetched frame locally, unless its blob has changed since, or there is no room."""
        async with self.order.exclusive([guid]):
            if self.closing or await self.view.stat(guid) != stat or await self.local.has_blob(guid):
                return
            with readable_view(frame, self.page_size) as read:
                if frame_checksum(read) != stat.checksum:
                    return
            if not await self._evict(1):
                self.not_kept += 1
                return
            self.residents.reserved += 1
            try:
                await self.local.write_blobs([(guid, frame, stat.meta)])
                self.residents.add([guid])
            except (BlobStoreIOError, StorePoisoned) as error:
                self.not_kept += 1
                logger.warning(
                    "%r: a fetched frame is not kept: %s", self, error, extra={"event": "not_kept"}
                )
            finally:
                self.residents.reserved -= 1

    # -- the end ------------------------------------------------------------------------------

    async def finish(self, *, upload: bool) -> None:
        """End what is under way; both stores stay open."""
        self.closing = True
        await self.order.idle()
        await self.fetches.idle()
        try:
            if upload and self.uploader.stopped is None:
                if self.due or self.tombstones.there:
                    await self.uploader.wait()
                await self.uploader.end()
                if not (self.due or self.tombstones.there):
                    await note_clean(self.local, self._attached.record)
        except BlobStoreError as error:
            logger.warning(
                "%r: closed before all was uploaded, which the next opening goes on with: %s",
                self,
                error,
                extra={"event": "not_uploaded"},
            )
        finally:
            await self.uploader.end()

    def __repr__(self) -> str:
        return f"<tier {self.local!r} before {self.remote!r}>"
