"""Planted bugs of the tier: each takes one safety out.  The lives of ``tiered/lives.py`` know nothing of them."""

from __future__ import annotations

import contextlib
from unittest import mock

from uringblob.tiered import core, upload
from uringblob.tiered.core import TierCore
from uringblob.tiered.order import Order
from uringblob.tiered.tombstones import Tombstones
from uringblob.tiered.upload import Upload
from uringblob.tiered.view import View


class _Itself:
    """A store that passes for its own snapshot."""

    def __init__(self, store) -> None:
        self.store = store

    async def __aenter__(self):
        return self.store

    async def __aexit__(self, *_) -> None:
        pass


def no_snapshot():
    """What is uploaded is read while it changes."""

    async def upload_moment(self):
        local = self.local

        class Local:
            def __getattr__(self, name):
                return getattr(local, name)

            async def snapshot(self):
                return _Itself(local)

        self.local = Local()
        try:
            await honest(self)
        finally:
            self.local = local

    honest = TierCore._upload_moment
    return mock.patch.object(TierCore, "_upload_moment", upload_moment)


def no_flush_before_an_upload():
    """The bucket may be ahead of the disk."""
    return mock.patch.object(core, "Upload", _Unflushed)


class _Unflushed(Upload):
    pass


def no_tombstones():
    """A deletion that is not uploaded is forgotten by a crash."""

    def new(self, guids, page_size):
        return {}, []

    return mock.patch.object(Tombstones, "new", new)


def touched_only_after():
    """A change may be in the snapshot, and not be uploaded with it."""

    async def change(self, *args):
        touch, calls = self._touch, []

        def late(guids):
            calls.append(guids)
            if len(calls) > 1:
                touch(guids)

        twin = mock.Mock(wraps=self)
        twin._touch = late
        for name in (
            "order",
            "due",
            "remote",
            "local",
            "residents",
            "tombstones",
            "view",
            "page_size",
            "blobs",
        ):
            setattr(twin, name, getattr(self, name))
        twin._settle = lambda changed, tombstones: _settle(self, twin, changed, tombstones)
        await honest(twin, *args)
        self.blobs = twin.blobs

    async def _settle(self, twin, changed, tombstones):
        twin._touch(changed)
        await TierCore._settle(self, changed, tombstones)

    honest = TierCore._change
    return mock.patch.object(TierCore, "_change", change)


def touched_only_before():
    """A change that ends after the snapshot is taken for uploaded."""

    async def settle(self, changed, tombstones):
        numbers = {guid: self.due.get(guid) for guid in changed}
        await honest(self, changed, tombstones)
        for guid, number in numbers.items():
            if number is None:
                self.due.pop(guid, None)
            else:
                self.due[guid] = number

    honest = TierCore._settle
    return mock.patch.object(TierCore, "_settle", settle)


def what_waits_is_evicted():
    """A frame that only the local store has goes."""

    async def evict(self, more):
        due, self.due = self.due, {}
        try:
            return await honest(self, more)
        finally:
            self.due = {**due, **self.due}

    honest = TierCore._evict
    return mock.patch.object(TierCore, "_evict", evict)


def tombstones_outlive_evictions():
    """One that is left over deletes what was written again."""
    return mock.patch.object(Tombstones, "uploaded", lambda self, numbers: None)


def names_compared_alone():
    """What is evicted is taken for deleted."""
    return mock.patch.object(View, "is_deleted", _always)


async def _always(self, guid):
    return True


def a_fetch_replaces_what_was_written_since():
    """An older frame comes back."""

    async def keep(self, guid, frame, stat):
        if not self.closing and await self._evict(1):
            await self.local.write_blobs([(guid, frame, stat.meta)])
            self.residents.add([guid])

    return mock.patch.object(TierCore, "_keep", keep)


def changes_of_one_blob_at_once():
    @contextlib.asynccontextmanager
    async def exclusive(self, guids):
        yield

    return mock.patch.object(Order, "exclusive", exclusive)


def a_group_for_each_part():
    """An upload in parts is durable in parts."""

    async def run(self, guids):
        remote = self._moment.remote
        writes, deletes = await upload.difference(self._moment, guids)
        for guid, meta in writes.items():
            with contextlib.ExitStack() as buffers:
                frames = await self._read([guid], buffers)
                await remote.write_blobs([(guid, frames[guid], meta)])
            await remote.flush()
            self.groups = 1
        for guid in deletes:
            await remote.delete_blob(guid)
        await remote.flush()

    return mock.patch.object(Upload, "run", run)


def acknowledged_before_it_is_uploaded():
    from uringblob.tiered.uploader import Uploader

    async def wait(self):
        self.request()

    return mock.patch.object(Uploader, "wait", wait)


PLANTED = [
    no_snapshot,
    no_tombstones,
    touched_only_after,
    touched_only_before,
    what_waits_is_evicted,
    tombstones_outlive_evictions,
    names_compared_alone,
    a_fetch_replaces_what_was_written_since,
    a_group_for_each_part,
    acknowledged_before_it_is_uploaded,
]
