"""Planted bugs in the remote protocol: each breaks one rule of ``docs/remote-format.md``, and a hunt finds it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from unittest import mock

from remote import steps
from uringblob.buffers.checksum import frame_checksum
from uringblob.errors import BlobStoreIOError
from uringblob.remote import history as histories
from uringblob.remote import keeper as keeping
from uringblob.remote.bucket import BucketError, KeyTaken
from uringblob.remote.core import Core
from uringblob.remote.format import (
    EPOCH,
    HEAD,
    Entry,
    decode_header,
    digest_of,
    encode,
    frame_key,
    frame_name,
    log_key,
)
from uringblob.remote.history import History
from uringblob.remote.keeper import Keeper
from uringblob.remote.lease import Lease
from uringblob.remote.requests import Requests
from uringblob.remote.writer import Writer, _Sent
from uringblob.testing.sim.bucket import BucketFault

patch = mock.patch.object


@contextlib.contextmanager
def groups_before_frames():
    """Rule 1."""
    real, entries_to_come = Core.put, []

    async def put(self, writes, metas):
        entries = await real(self, {}, {})
        for guid, src in writes.items():
            entry = Entry(self.writer.name_frame(), frame_checksum(bytes(src)), metas.get(guid, b""))
            entries[guid] = entry
            entries_to_come.append(asyncio.ensure_future(later(self, entry, bytes(src))))
        return entries

    async def later(core, entry, body):
        for _ in range(60):
            await asyncio.sleep(0)
        with contextlib.suppress(BucketError):
            await core.requests.put(frame_key(entry.frame), body)

    with patch(Core, "put", put):
        yield


@contextlib.contextmanager
def names_of_frames_used_again():
    """Rule 2."""

    def name_frame(self):
        self._frames += 1
        return frame_name(1, bytes(8), self._frames)

    with patch(Writer, "name_frame", name_frame):
        yield


@contextlib.contextmanager
def a_commit_in_several_groups():
    """Rule 3: each frame has a group of its own."""

    async def commit(self, writes, metas, deletes, conditions):
        for guid, entry in {**await self.put(writes, metas), **dict.fromkeys(deletes)}.items():
            await self.writer.commit({guid: entry}, conditions)

    with patch(Core, "commit", commit):
        yield


@contextlib.contextmanager
def groups_put_without_a_condition():
    """Rule 3: what has the number is overwritten."""
    real = Requests.create

    async def create(self, key, body):
        if not key.startswith("log/"):
            return await real(self, key, body)
        await self.put(key, body)
        return None

    with patch(Requests, "create", create):
        yield


@contextlib.contextmanager
def the_next_group_sent_after_one_of_unknown_outcome():
    """Rule 4."""
    real = Writer._settle

    async def settle(self):
        try:
            await real(self)
        except BlobStoreIOError:
            if self._sent is not None:
                self._apply(self._sent)
            raise

    with patch(Writer, "_settle", settle):
        yield


@contextlib.contextmanager
def taken_is_taken_for_ones_own():
    """Rule 5: what is there is not compared."""
    real = Requests.create

    async def create(self, key, body):
        await real(self, key, body)

    with patch(Requests, "create", create):
        yield


@contextlib.contextmanager
def taken_is_always_another_writer():
    """Rule 5, the other way round."""

    async def create(self, key, body):
        async def attempt():
            try:
                await self.bucket.create(key, body)
            except KeyTaken:
                return await self.find(key)

        return await self._repeat(attempt)

    with patch(Requests, "create", create):
        yield


@contextlib.contextmanager
def a_group_of_unknown_outcome_is_given_up():
    """Rule 5: the next group goes to the same number."""
    real = Writer._settle

    async def settle(self):
        try:
            await real(self)
        except Exception:
            if self._sent is not None:
                self._land()
            raise

    with patch(Writer, "_settle", settle):
        yield


@contextlib.contextmanager
def conditions_not_checked():
    """Rule 6."""
    with patch(Writer, "_refusal", lambda *_: None):
        yield


@contextlib.contextmanager
def the_fence_is_jumped():
    """Rule 7: the writer that was taken over goes on after the epoch group."""

    def fence(self, there, key):
        self.history.seq += 1
        self.history.digest = digest_of(there)

    with patch(Writer, "_fence", fence):
        yield


@contextlib.contextmanager
def no_epoch_group():
    """Rule 7: who opens to write changes nothing in the log."""

    async def take_over(self):
        await self.history.advance()
        self.history.epoch += 1

    with patch(Writer, "take_over", take_over):
        yield


@contextlib.contextmanager
def epoch_groups_deleted():
    """Rule 8."""
    with patch(keeping, "EPOCH_BYTES", 0):
        yield


@contextlib.contextmanager
def ghosts_become_writers():
    """Rule 9: ``head`` is not read after the epoch group was made."""

    async def take_over(self):
        while True:
            await self.history.advance()
            header = self._header(EPOCH, self.history.epoch + 1)
            body = encode(header, {})
            if await self.history.requests.create(log_key(header.seq), body) is None:
                self.history.apply(header, {}, digest_of(body))
                return

    with patch(Writer, "take_over", take_over):
        yield


@contextlib.contextmanager
def the_end_of_the_log_believed():
    """Rule 10: a missing group is the end, whatever ``head`` says."""
    real = History.advance

    async def advance(self, *, protected=False):
        await real(self, protected=True)

    with patch(History, "advance", advance):
        yield


@contextlib.contextmanager
def digests_not_compared():
    """Rule 10: any group with the right number is believed."""
    real = History._follows

    def follows(self, body):
        self.digest = decode_header(body, "")[0].before
        return real(self, body)

    with patch(History, "_follows", follows):
        yield


@contextlib.contextmanager
def the_groups_after_the_map_not_read():
    """Rule 11: what opens to read believes the map to be all."""
    real = History.advance

    async def advance(self, *, protected=False):
        if protected or not self.head.map:
            await real(self, protected=protected)

    with patch(History, "advance", advance):
        yield


@contextlib.contextmanager
def head_not_read_again_where_its_map_is_gone():
    """Rule 11."""
    with patch(histories, "RESTARTS_MAX", 1):
        yield


@contextlib.contextmanager
def head_set_without_a_condition():
    """Rule 12."""

    async def publish(self, _still, **fields):
        history = self._history
        history.head = dataclasses.replace(history.head, **fields)
        await self._requests.put(HEAD, history.head.encode())
        return True

    with patch(Keeper, "_publish", publish):
        yield


@contextlib.contextmanager
def head_before_its_map():
    """Rule 13."""
    real_put, real_publish = Requests.put, Keeper._publish
    waiting = {}

    async def put(self, key, body):
        if key.startswith("map/"):
            waiting[self] = (key, body)
        else:
            await real_put(self, key, body)

    async def publish(self, still, **fields):
        done = await real_publish(self, still, **fields)
        if self._requests in waiting:
            await real_put(self._requests, *waiting.pop(self._requests))
        return done

    with patch(Requests, "put", put), patch(Keeper, "_publish", publish):
        yield


@contextlib.contextmanager
def frames_of_an_unknown_commit_deleted():
    """Rule 14: its group may be in the log."""
    with patch(_Sent, "of", lambda *_: False):
        yield


@contextlib.contextmanager
def what_a_group_replaces_deleted_before_it_is_there():
    """Rule 14: it may never be."""
    real = Writer._form

    def form(self, commits):
        real(self, commits)
        if self._sent is not None:
            self.discard(0, *map(self.history.blobs.get, self._sent.records))

    with patch(Writer, "_form", form):
        yield


@contextlib.contextmanager
def frames_of_every_epoch_swept():
    """Rule 15: a writer that was taken over sweeps its successor's."""
    with patch(keeping, "number_in", lambda key: -1 if key.startswith("frames/") else number_of(key)):
        yield


number_of = keeping.number_in


@contextlib.contextmanager
def leases_not_looked_at():
    """Rule 16."""

    async def oldest_lease(self):
        return self._history.seq

    with patch(Keeper, "_oldest_lease", oldest_lease):
        yield


@contextlib.contextmanager
def snapshots_forgotten():
    """Rule 16, for snapshots of the store itself."""
    with patch(Core, "oldest", lambda self: self.history.seq):
        yield


@contextlib.contextmanager
def no_horizon():
    """Rule 17: what died by now is collected now."""
    real = Keeper.collect

    async def collect(self):
        self._ripe = self._horizon = self._history.seq
        return await real(self)

    with patch(Keeper, "collect", collect):
        yield


@contextlib.contextmanager
def the_horizon_not_read():
    """Rule 17, on the reader's side."""

    async def take_lease(self):
        await self.history.advance()
        await self.lease.take()

    with patch(Core, "take_lease", take_lease):
        yield


@contextlib.contextmanager
def leases_expire_at_once():
    """Rule 18."""
    with patch(keeping, "decode_lease", lambda body: (decode(body)[0], 1.0)):
        yield


decode = keeping.decode_lease


@contextlib.contextmanager
def leases_never_renewed():
    """Rule 18."""

    async def renew(_self):
        pass

    with patch(Lease, "renew", renew):
        yield


#: Each bug with a hunt that finds it soon: which steps, or ``None`` for random lives.
PLANTED = {
    groups_before_frames: None,
    names_of_frames_used_again: None,
    a_commit_in_several_groups: None,
    groups_put_without_a_condition: steps.writers_asleep,
    the_next_group_sent_after_one_of_unknown_outcome: lambda: steps.requests_failing([(BucketFault.LOST, 3)]),
    taken_is_taken_for_ones_own: steps.openers_asleep,
    taken_is_always_another_writer: lambda: steps.requests_failing([(BucketFault.ANSWER_LOST, 1)]),
    a_group_of_unknown_outcome_is_given_up: lambda: steps.requests_failing([(BucketFault.LATE, 3)]),
    conditions_not_checked: None,
    the_fence_is_jumped: steps.openers_asleep,
    no_epoch_group: steps.writers_asleep,
    epoch_groups_deleted: steps.writers_asleep,
    ghosts_become_writers: steps.openers_asleep,
    the_end_of_the_log_believed: steps.readers_asleep,
    digests_not_compared: steps.alone,
    the_groups_after_the_map_not_read: steps.maps_replaced,
    head_not_read_again_where_its_map_is_gone: steps.maps_replaced,
    head_set_without_a_condition: steps.writers_asleep,
    head_before_its_map: steps.writers_asleep,
    frames_of_an_unknown_commit_deleted: lambda: steps.requests_failing([(BucketFault.LATE, 3)]),
    what_a_group_replaces_deleted_before_it_is_there: None,
    frames_of_every_epoch_swept: steps.writers_asleep,
    leases_not_looked_at: steps.readers_asleep,
    snapshots_forgotten: steps.alone,
    no_horizon: steps.readers_asleep,
    the_horizon_not_read: steps.readers_asleep,
    leases_expire_at_once: steps.readers_asleep,
    leases_never_renewed: steps.alone,
}
