"""Planted bugs: each a small patch that takes one safety out of the store.

None of them is looked for by a test of its own: the hunts of ``sim/hunts.py`` know nothing of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from unittest import mock

from sim.planted_conditions import PLANTED_IN_CONDITIONS
from sim.planted_engines import PLANTED_IN_ENGINES
from sim.planted_flat import PLANTED_IN_FLAT_GROUPS
from sim.planted_snapshots import PLANTED_IN_SNAPSHOTS
from sim.planted_vacuum import PLANTED_IN_VACUUMS
from sim.rig import PAGE
from uringblob.completion import Completion
from uringblob.engines import transfers
from uringblob.store import async_store, closing, core
from uringblob.store import (
    format as store_format,
)
from uringblob.store import frame_writes as batch
from uringblob.store.format import BlockType
from uringblob.store.index import blob_index, slots
from uringblob.store.index.slot_states import SlotState
from uringblob.store.io import file_io as medium
from uringblob.store.log import compaction, group, superblocks
from uringblob.store.log import reader as log_reader
from uringblob.store.log import writer as log
from uringblob.store.log.compaction import Compaction
from uringblob.store.opening import open as opening
from uringblob.store.opening import recover as recovery
from uringblob.store.opening import repair, state


def replaced(owner, name, new):
    return mock.patch.object(owner, name, new)


@contextlib.contextmanager
def no_fsync_before_acknowledging():
    async def sync(self, what):
        waiters, self._sync_waiters = self._sync_waiters, []
        if not what.startswith("commit of group"):
            await transfers.sync(self.engine, what)
        for waiter in waiters:
            waiter.resolve(None)

    with replaced(medium.FileIO, "sync", sync):
        yield


@contextlib.contextmanager
def fsync_before_the_frames_have_landed():
    """The log block and the fsync go out; the frames are waited for afterwards."""
    write = group.Group.write

    async def hasty(self):
        landed, unlanded = [m.written for m in self._members], self._failed_members

        async def not_yet():
            return {}

        self._failed_members = not_yet
        result = await write(self)
        self._failed_members = unlanded
        assert len(landed) == len(self._members)
        return result or await unlanded()

    with replaced(group.Group, "write", hasty):
        yield


@contextlib.contextmanager
def tail_not_wiped():
    real = opening.repair

    async def lazy(medium_, found, *superblocks):
        found.tail.dirty_blocks.clear()
        await real(medium_, found, *superblocks)

    with replaced(opening, "repair", lazy):
        yield


@contextlib.contextmanager
def doubtful_group_accepted_unverified():
    async def trusting(_medium, _found, _page_size):
        return None

    with replaced(recovery, "_first_bad_frame", trusting):
        yield


@contextlib.contextmanager
def slots_freed_when_superseded():
    real = slots.SlotTable.retire
    with replaced(slots.SlotTable, "retire", lambda self, slot, _fence: real(self, slot, 0)):
        yield


@contextlib.contextmanager
def slots_freed_with_the_last_group():
    real = slots.SlotTable.confirm
    with replaced(slots.SlotTable, "confirm", lambda self, seq, *most: real(self, seq + 1, *most)):
        yield


@contextlib.contextmanager
def slots_freed_under_their_readers():
    def drain(self, slot):
        self.move(slot, slots.SlotState.FREE)

    def unpin(self, slot):
        holders = self._pins.pop(slot) - 1
        if holders:
            self._pins[slot] = holders

    with replaced(slots.SlotTable, "_drain", drain), replaced(slots.SlotTable, "unpin", unpin):
        yield


@contextlib.contextmanager
def old_log_freed_before_the_superblocks():
    """One superblock is enough."""

    async def change(self, **fields):
        await self._writing.run(self._write_older, dataclasses.replace(self.current, **fields))

    with replaced(superblocks.Superblocks, "change", change):
        yield


@contextlib.contextmanager
def superblocks_not_flushed_apart():
    """Both superblocks are written, then one fsync."""

    async def together(self, **fields):
        for _ in range(2):
            offset = 4096 - self._offset
            block = dataclasses.replace(self.current, **fields, revision=self.current.revision + 1)
            await self._file_io.write(offset, block.encode(offset), "writing a superblock")
            self.current, self._offset = block, offset
        await self._file_io.sync("writing a superblock")

    with replaced(superblocks.Superblocks, "change", together):
        yield


@contextlib.contextmanager
def snapshot_of_the_visible_map():
    real = blob_index.BlobIndex.freeze

    def freeze(self):
        frozen = dict(real(self))
        for name, pending in self._pending.items():
            if pending.entry is None:
                frozen.pop(name, None)
            else:
                frozen[name] = pending.entry
        return iter(list(frozen.items())[: len(self._base)])

    with replaced(blob_index.BlobIndex, "freeze", freeze):
        yield


@contextlib.contextmanager
def metadata_forgotten_by_a_compaction():
    real = compaction.set_record
    with replaced(compaction, "set_record", lambda name, entry: real(name, int(entry))):
        yield


@contextlib.contextmanager
def metadata_of_the_frame_before_kept():
    """A frame without metadata, found in the log, has that of the frame which it replaced."""
    real = recovery.LogReplay._set

    def keep(self, name, entry):
        if entry is not None and not store_format.entry_meta(entry):
            entry = store_format.with_meta(entry, store_format.entry_meta(self.entries.get(name) or 0))
        real(self, name, entry)

    with replaced(recovery.LogReplay, "_set", keep):
        yield


@contextlib.contextmanager
def carry_forgotten():
    with replaced(blob_index.BlobIndex, "delta", lambda _self: {}):
        yield


@contextlib.contextmanager
def new_log_not_flushed_before_the_switch():
    real = medium.FileIO.sync
    carry = Compaction._carry
    carrying = []

    async def sync(self, what):
        if not carrying:
            await real(self, what)

    async def careless(self, old, new):
        carrying.append(1)
        await carry(self, old, new)
        carrying.clear()

    with replaced(medium.FileIO, "sync", sync), replaced(Compaction, "_carry", careless):
        yield


@contextlib.contextmanager
def seal_before_the_flush():
    real = closing.close_core

    async def close(core, *, flush):
        if core.file_io.poison_cause is None:
            await core.superblocks.seal(core.log.seq + 1)
        await real(core, flush=flush)

    with replaced(async_store, "close_core", close):
        yield


@contextlib.contextmanager
def group_dropped_though_a_later_one_stands():
    """A bad group ends the log without a word, whatever stands behind it."""
    with (
        replaced(recovery, "_check_tail", lambda *_: None),
        replaced(
            recovery,
            "_is_in_doubt",
            lambda found: (
                found.seq > found.floor
                and bool(found.last_group)
                and found.last_group[0][1].type is BlockType.GROUP
            ),
        ),
    ):
        yield


@contextlib.contextmanager
def segment_linked_before_it_is_zeroed():
    async def zero(_self, _segment):
        return None

    with replaced(log.Log, "zero", zero):
        yield


@contextlib.contextmanager
def frames_said_to_be_synced():
    with (
        replaced(group, "FLAG_FRAMES_SYNCED", 1),
        replaced(group.Group, "_sync_first", _claims_to_have_synced),
    ):
        yield


async def _claims_to_have_synced(_self):
    return True, {}


@contextlib.contextmanager
def write_in_place():
    """A frame is written over the one its blob has already."""
    real = core.Core._prepare

    async def prepare(self, writes, metas):
        batch = await real(self, writes, metas)
        for name, content in writes.items():
            entry = self.index.find_durable(name)
            if entry is not None:
                await self.file_io.write((entry >> 64) * PAGE, bytes(content.view), "in place")
        return batch

    with replaced(core.Core, "_prepare", prepare):
        yield


@contextlib.contextmanager
def failed_group_not_wiped():
    async def careless(_self, _stretches):
        return None

    with replaced(log.Log, "wipe", careless):
        yield


@contextlib.contextmanager
def failed_fsync_tried_again():
    async def stubborn(engine, what):
        rc = await engine.sync()
        if rc < 0:
            rc = await engine.sync()
        transfers._check_sync(rc, what)

    with replaced(transfers, "sync", stubborn):
        yield


@contextlib.contextmanager
def short_write_taken_for_whole():
    finish = transfers._finish

    async def careless(*args, reading):
        return await finish(*args, reading=reading) if reading else None

    with replaced(transfers, "_finish", careless):
        yield


@contextlib.contextmanager
def log_error_ignored():
    async def careless(_self, _error, _stretches):
        return None

    with replaced(log.Log, "undo_failed", careless):
        yield


@contextlib.contextmanager
def acknowledged_before_the_fsync_returned():
    """The fsync of a commit is asked for, and nobody waits for it."""
    real = medium.FileIO.sync

    async def sync(self, what):
        if not what.startswith("commit of group"):
            await real(self, what)
            return
        self.start(real(self, what)).add_done_callback(lambda job: job.exception())

    with replaced(medium.FileIO, "sync", sync):
        yield


@contextlib.contextmanager
def slots_freed_before_their_record_is_durable():
    """What a group replaces is free when the group begins."""
    real_join, real_retire = blob_index.BlobIndex.join_group, slots.SlotTable.retire
    freed = set()

    def join_group(self, changes, name, change):
        superseded_change = real_join(self, changes, name, change)
        old = self.find_durable(name)
        if old is not None and self.slots.state(old >> 64) is SlotState.LIVE:
            real_retire(self.slots, old >> 64, 0)
            freed.add(old >> 64)
        return superseded_change

    def retire(self, slot, fence):
        if slot in freed:
            freed.discard(slot)
        else:
            real_retire(self, slot, fence)

    with (
        replaced(blob_index.BlobIndex, "join_group", join_group),
        replaced(slots.SlotTable, "retire", retire),
    ):
        yield


@contextlib.contextmanager
def block_checksum_not_checked():
    """Whatever a block's checksum says, the reader finds it right."""
    real = store_format.decode_block

    def decode(store_id, offset, raw):
        signed = bytearray(raw)
        signed[32:40] = bytes(8)
        right = store_format._block_checksum(store_id, offset, signed)
        signed[32:40] = right.to_bytes(8, "little")
        return real(store_id, offset, bytes(signed))

    with replaced(log_reader, "decode_block", decode):
        yield


@contextlib.contextmanager
def block_checksum_leaves_out_the_records():
    """Only the heads are covered: neither guids nor slots."""
    real = store_format._block_checksum
    step = store_format.SECTOR_SIZE

    def checksum(store_id, offset, block):
        heads = bytearray(len(block))
        for at in range(0, len(block), step):
            heads[at : at + 32] = block[at : at + 32]
        heads[32:64] = block[32:64]
        return real(store_id, offset, heads)

    with replaced(store_format, "_block_checksum", checksum):
        yield


@contextlib.contextmanager
def blocks_not_bound_to_their_place():
    real = store_format._block_checksum

    def checksum(store_id, _offset, block):
        return real(store_id, 0, block)

    with replaced(store_format, "_block_checksum", checksum):
        yield


@contextlib.contextmanager
def segments_released_before_the_superblocks():
    """The old log's segments are free as soon as the switch is durable; the superblocks come when they come."""

    async def adopt(self, old, new, *, upgrades):
        assert not upgrades
        for segment in old.chain:
            self._log_space.free(segment)
        head = new.segments[0]
        self._file_io.start(
            self._superblocks.change(log_id=new.log_id, head=head, floor=new.seq)
        ).add_done_callback(lambda job: job.exception())
        self._index.slots.confirm(new.seq)

    with replaced(Compaction, "_adopt", adopt):
        yield


@contextlib.contextmanager
def log_space_used_before_it_is_listed():
    """A log takes a new extent at once; the superblocks list it with the next change of theirs."""

    async def record_extents(self, extents):
        self.current = dataclasses.replace(self.current, log_space=tuple(extents))

    with replaced(superblocks.Superblocks, "record_extents", record_extents):
        yield


@contextlib.contextmanager
def append_behind_a_torn_tail():
    """The dropped group is neither wiped nor taken back as a place: the next one goes behind it."""
    real_drop, real_wipe = recovery._drop_last_group, opening.repair

    def drop(found, why):
        place = found.reader.position
        real_drop(found, why)
        found.reader.position = place

    async def lazy(medium_, found, *superblocks_):
        found.tail.dirty_blocks.clear()
        await real_wipe(medium_, found, *superblocks_)

    with replaced(recovery, "_drop_last_group", drop), replaced(opening, "repair", lazy):
        yield


@contextlib.contextmanager
def slot_used_again_after_a_failed_write():
    def free(self, _why):
        for piece in self.pieces:
            self._allocator.free(piece.run, SlotState.FREE)
        self.pieces = []

    with replaced(batch.Batch, "free", free):
        yield


@contextlib.contextmanager
def sync_believed_while_another_fails():
    """A flush counts as soon as it returns, whatever becomes of those beside it."""

    async def run_sync(_self, syncing, _what):
        return await syncing()

    with replaced(medium.FileIO, "run_sync", run_sync):
        yield


@contextlib.contextmanager
def failed_fsync_forgotten():
    """The caller hears of it, and the store goes on."""
    real = medium.FileIO.poison

    def poison(self, cause):
        if not isinstance(cause, transfers.SyncFailed):
            real(self, cause)

    with replaced(medium.FileIO, "poison", poison):
        yield


@contextlib.contextmanager
def wipe_not_flushed():
    async def wipe(self, stretches):
        for offset, data in stretches:
            await self.file_io.write(offset, bytes(len(data)), "wiping a failed group")

    with replaced(log.Log, "wipe", wipe):
        yield


@contextlib.contextmanager
def buffers_let_go_on_cancel():
    """A cancelled caller is told at once, and uses its buffer while the disk does."""
    with replaced(Completion, "cancel", asyncio.Future.cancel):
        yield


@contextlib.contextmanager
def header_linked_before_it_is_durable():
    """A new segment is in use as soon as its header was asked for."""

    def wait_next_sync(self):
        done = Completion(loop=self.loop)
        done.resolve(None)
        return done

    with replaced(medium.FileIO, "wait_next_sync", wait_next_sync):
        yield


@contextlib.contextmanager
def floor_not_raised_before_the_wipe():
    async def lazy(*_):
        return None

    with replaced(repair, "_raise_floor", lazy):
        yield


@contextlib.contextmanager
def cache_believed_by_an_opener():
    """What is read through a cache is not written again."""

    async def trusting(*_):
        return None

    with replaced(repair, "_write_again", trusting):
        yield


def _read_only_openers(recovering):
    """What ``recovering`` does is done by read-only openers instead of recovery; writable ones are as they were."""
    real = recovery.recover

    async def recover(medium_, superblock, *, read_only, **options):
        how = recovering if read_only else real
        return await how(medium_, superblock, read_only=read_only, **options)

    return replaced(state, "recover", recover)


@contextlib.contextmanager
def doubtful_group_shown_unverified():
    """A read-only opener shows the last group, whatever became of its frames."""
    real = recovery.recover

    async def trusting(*arguments, **options):
        with doubtful_group_accepted_unverified():
            return await real(*arguments, **options)

    with _read_only_openers(trusting):
        yield


@contextlib.contextmanager
def cache_believed_by_a_read_only_opener():
    """A read-only opener verifies the last group in a cache, and takes that for the medium."""
    real = recovery.recover

    async def trusting(*arguments, read_only, **_cached):
        return await real(*arguments, read_only=read_only, cached="")

    with _read_only_openers(trusting):
        yield


@contextlib.contextmanager
def deletions_believed_by_a_read_only_opener():
    """A read-only opener leaves out only what has frames."""
    real = recovery.RecoveredLog.is_unproved

    def is_unproved(self):
        return real(self) and any(slot for _, slot, _ in recovery.entries_of(self.last_group))

    async def hasty(*arguments, **options):
        with replaced(recovery.RecoveredLog, "is_unproved", is_unproved):
            return await recovery.recover(*arguments, **options)

    with _read_only_openers(hasty):
        yield


@contextlib.contextmanager
def next_group_before_the_last_is_durable():
    """Groups are flushed one behind: a group is acknowledged by the flush of the next one."""
    real = medium.FileIO.sync
    seen = []

    async def sync(self, what):
        if what.startswith("commit of group"):
            seen.append(what)
            if len(seen) % 2:
                return
        await real(self, what)

    with replaced(medium.FileIO, "sync", sync):
        yield


@contextlib.contextmanager
def failed_members_frames_logged():
    """A frame that could not be written is logged all the same."""

    async def deaf(self):
        for member in self._members:
            if member.written is not None:
                await group.wait_all([member.written])
        return {}

    with replaced(group.Group, "_failed_members", deaf):
        yield


#: Bug: the hunt that finds it, and for a hunt with faults, which.
PLANTED = {
    no_fsync_before_acknowledging: "power cuts",
    acknowledged_before_the_fsync_returned: "power cuts",
    fsync_before_the_frames_have_landed: "power cuts",
    next_group_before_the_last_is_durable: "power cuts",
    write_in_place: "power cuts",
    metadata_forgotten_by_a_compaction: "power cuts",
    metadata_of_the_frame_before_kept: "power cuts",
    slots_freed_before_their_record_is_durable: "power cuts",
    slots_freed_when_superseded: "power cuts",
    slots_freed_with_the_last_group: "power cuts",
    slots_freed_under_their_readers: "power cuts",
    block_checksum_not_checked: "flipped bits",
    block_checksum_leaves_out_the_records: "flipped bits",
    blocks_not_bound_to_their_place: "misplaced blocks",
    doubtful_group_accepted_unverified: "power cuts",
    tail_not_wiped: "power cuts",
    append_behind_a_torn_tail: "power cuts",
    floor_not_raised_before_the_wipe: "power cuts",
    snapshot_of_the_visible_map: "power cuts",
    carry_forgotten: "power cuts",
    new_log_not_flushed_before_the_switch: "power cuts",
    old_log_freed_before_the_superblocks: "power cuts",
    segments_released_before_the_superblocks: "power cuts",
    log_space_used_before_it_is_listed: "power cuts",
    superblocks_not_flushed_apart: "power cuts",
    segment_linked_before_it_is_zeroed: "power cuts",
    header_linked_before_it_is_durable: "power cuts",
    seal_before_the_flush: "power cuts",
    cache_believed_by_an_opener: "lost pages",
    doubtful_group_shown_unverified: "power cuts",
    cache_believed_by_a_read_only_opener: "lost pages",
    deletions_believed_by_a_read_only_opener: "lost pages",
    frames_said_to_be_synced: "power cuts",
    group_dropped_though_a_later_one_stands: "flipped bits",
    failed_group_not_wiped: "ENOSPC",
    wipe_not_flushed: "ENOSPC",
    failed_members_frames_logged: "ENOSPC",
    slot_used_again_after_a_failed_write: "EIO",
    log_error_ignored: "EIO",
    failed_fsync_tried_again: "EIO",
    failed_fsync_forgotten: "EIO",
    sync_believed_while_another_fails: "EIO",
    short_write_taken_for_whole: "short by 512",
    buffers_let_go_on_cancel: "cancellations",
    **PLANTED_IN_ENGINES,
    **PLANTED_IN_FLAT_GROUPS,
    **PLANTED_IN_SNAPSHOTS,
    **PLANTED_IN_CONDITIONS,
    **PLANTED_IN_VACUUMS,
}
