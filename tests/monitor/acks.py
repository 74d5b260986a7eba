"""What the store acknowledged must be durable by then: the public calls, and what they returned."""

from __future__ import annotations

import contextlib
import functools

from uringblob import AsyncFileBlobStore, FileBlobStore
from uringblob.guid import guid_bytes
from uringblob.store.snapshot import AsyncFileSnapshot


class Promises:
    """What the callers of one store may believe; judged by its order monitor."""

    def __init__(self, monitor) -> None:
        self._monitor = monitor
        #: guid: the last durable group when the call that changed it began, in a list of that call's own.
        self._pending: dict[bytes, list[int]] = {}
        #: guid: how many deletions of it have begun.
        self._deleted: dict[bytes, int] = {}
        #: What calls name that may have made it visible without a record: in progress, or failed.
        self._unsure: list[list] = []

    def changed(self, guids, began: int) -> None:
        """A call that began after group ``began`` has made these visible; ``flush`` will make them durable."""
        for guid in guids:
            self._pending[guid] = [began]

    def begins(self) -> list:
        """A call begins that makes visible what it will note in the returned list."""
        self._unsure.append([])
        return self._unsure[-1]

    def ended(self, noted: list) -> None:
        """It has returned: :meth:`changed` knows the rest."""
        self._unsure = [each for each in self._unsure if each is not noted]

    def snapshot_taken(self, snapshot) -> None:
        """A snapshot shows, at least, what the durable map names and no later call may have changed."""
        monitor = self._monitor
        if monitor.blind or not monitor.supers:
            return
        unsure = {guid for noted in self._unsure for guid in _right_guids(noted)}.union(self._pending)
        monitor.shown[snapshot] = {
            slot
            for guid, slot in monitor.entries.items()
            if guid not in unsure and monitor.last_record.get(guid, -1) <= snapshot.seq
        }

    def deletion_begins(self, guids) -> None:
        for guid in guids:
            self._deleted[guid] = self._deleted.get(guid, 0) + 1

    def committed(self, guids, deletes, began: int) -> None:
        """``commit`` returned: a group that is durable by now, and was not when it began, has all of them."""
        monitor = self._monitor
        if monitor.blind:
            return
        for guid in guids:
            if monitor.last_record.get(guid, -1) <= began:
                monitor._wrong(
                    1, f"commit returned, and no flushed group since {began} has blob {guid.hex()}"
                )
        for guid in deletes:
            if guid in monitor.entries and monitor.last_record.get(guid, -1) <= began:
                monitor._wrong(1, f"commit returned, and the deletion of {guid.hex()} is not durable")

    def before_flush(self) -> dict[bytes, list[int]]:
        return dict(self._pending)

    def flushed(self, before: dict[bytes, list[int]]) -> None:
        """``flush`` returned: what was pending when it began is durable."""
        monitor = self._monitor
        if monitor.blind:
            return
        for guid, change in before.items():
            [began] = change
            if monitor.last_record.get(guid, -1) <= began and not self._never_was(guid):
                monitor._wrong(
                    16, f"flush returned, and no flushed group since {began} has blob {guid.hex()}"
                )
            if self._pending.get(guid) is change:
                del self._pending[guid]

    def _never_was(self, guid: bytes) -> bool:
        """It was deleted before any record named it, so there is nothing to record."""
        return guid in self._deleted and guid not in self._monitor.entries


def promises_of(store) -> Promises | None:
    return getattr(store._core.file_io.engine, "promises", None)


# --- the public calls, with ears ----------------------------------------------------------------


def _noting(items, noted: list):
    """Return ``items`` as they are, and note each one's guid.

    A list stays a list: a store takes a short one in one step, and that way is to be watched, too.
    """
    if not isinstance(items, (list, tuple)):
        return _noting_each(items, noted)
    noted.extend(item[0] if isinstance(item, tuple) and item else item for item in items)
    return items


def _noting_each(items, noted: list):
    for item in items:
        yield item
        noted.append(item[0] if isinstance(item, tuple) else item)


def _guids(noted: list) -> list[bytes]:
    return [guid_bytes(guid) for guid in noted]


def _right_guids(noted: list):
    for guid in noted:
        with contextlib.suppress(TypeError, ValueError):  # a call was refused because of it
            yield guid_bytes(guid)


def _hear_commit(real):
    @functools.wraps(real)
    async def commit(self, writes=(), deletes=(), *conditions, **named):
        promises = promises_of(self)
        if promises is None:
            return await real(self, writes, deletes, *conditions, **named)
        began, written, deleted = promises._monitor.seq, [], []
        call = real(self, _noting(writes, written), _noting(deletes, deleted), *conditions, **named)
        del writes, deletes  # an error's traceback knows this frame
        await call
        promises.deletion_begins(_guids(deleted))
        return promises.committed(_guids(written), _guids(deleted), began)

    return commit


def _hear_writes(real, *, synced: bool):
    @functools.wraps(real)
    async def write(self, writes):
        promises = promises_of(self)
        if promises is None:
            return await real(self, writes)
        monitor, written = promises._monitor, promises.begins()
        began, event = monitor.seq, monitor.clock.now
        call = real(self, _noting(writes, written))
        del writes
        await call
        promises.ended(written)
        if synced and written and monitor.clock.flushed <= event and not monitor.blind:
            monitor._wrong(1, "write_blobs_with_data_sync returned, and no flush began since it was called")
        return promises.changed(_guids(written), began)

    return write


def _hear_write(real):
    @functools.wraps(real)
    async def write_blob(self, guid, src, meta=b""):
        promises = promises_of(self)
        if promises is None:
            return await real(self, guid, src, meta)
        began, written = promises._monitor.seq, promises.begins()
        call = real(self, guid, src, meta)
        del src
        written.append(guid)
        await call
        promises.ended(written)
        return promises.changed(_guids(written), began)

    return write_blob


def _hear_delete(real):
    @functools.wraps(real)
    async def delete_blob(self, guid):
        promises = promises_of(self)
        if promises is None:
            return await real(self, guid)
        began, noted = promises._monitor.seq, promises.begins()
        noted.append(guid)
        await real(self, guid)
        promises.ended(noted)
        promises.deletion_begins(_guids([guid]))
        return promises.changed(_guids([guid]), began)

    return delete_blob


def _hear_flush(real):
    @functools.wraps(real)
    async def flush(self):
        promises = promises_of(self)
        if promises is None:
            return await real(self)
        before = promises.before_flush()
        await real(self)
        return promises.flushed(before)

    return flush


def _hear_snapshot(real):
    @functools.wraps(real)
    async def snapshot(self):
        promises = promises_of(self)
        taken = await real(self)
        if promises is not None:
            promises.snapshot_taken(taken)
        return taken

    return snapshot


def _hear_end_of_snapshot(real):
    @functools.wraps(real)
    async def aclose(self, flush=True):
        promises = promises_of(self)
        if promises is not None:
            promises._monitor.shown.pop(self, None)
        await real(self, flush)

    return aclose


def _hear_commit_of_threads(real):
    @functools.wraps(real)
    def commit(self, writes=(), deletes=(), *conditions, **named):
        promises = promises_of(self._core) if hasattr(self._core, "_core") else None
        if promises is None:
            return real(self, writes, deletes, *conditions, **named)
        began, written, deleted = promises._monitor.seq, [], []
        real(self, _noting(writes, written), _noting(deletes, deleted), *conditions, **named)
        return promises.committed(_guids(written), _guids(deleted), began)

    return commit


def _hear_opened(real):
    @functools.wraps(real)
    def opened(self, core, loop, observer=None):
        real(self, core, loop, observer)
        promises = promises_of(self)
        if promises is not None:
            promises._monitor.opened(read_only=core.file.read_only)

    return opened


#: Class, method, and what takes its place.
EARS = [
    (AsyncFileBlobStore, "__init__", _hear_opened),
    (AsyncFileBlobStore, "commit", _hear_commit),
    (AsyncFileBlobStore, "write_blob", _hear_write),
    (AsyncFileBlobStore, "write_blobs", functools.partial(_hear_writes, synced=False)),
    (AsyncFileBlobStore, "write_blobs_with_data_sync", functools.partial(_hear_writes, synced=True)),
    (AsyncFileBlobStore, "delete_blob", _hear_delete),
    (AsyncFileBlobStore, "flush", _hear_flush),
    (AsyncFileBlobStore, "snapshot", _hear_snapshot),
    (AsyncFileSnapshot, "aclose", _hear_end_of_snapshot),
    (FileBlobStore, "commit", _hear_commit_of_threads),
]
