"""Rewriting the log as a snapshot of the durable index, while commits go on (rule 9).

docs/maintainers/format.md ("Compaction", "Version 1, and its upgrade") has the steps: SNAPSHOT and CARRY
in the new log, SWITCH in the old one (none in an upgrade), both superblocks.  Each is flushed before the next.

Until the SWITCH a compaction can be given up without a trace; a SWITCH for which there was no room is
wiped.  Without room for the superblocks, they are due before anything else changes.  Any other failure from
the SWITCH on poisons.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from uringblob import tuning
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError
from uringblob.store.format import (
    BLOCK_SIZE,
    VERSION,
    BlockType,
    SlotRun,
    blocks_for,
    delete_record,
    link_record,
    packed,
    set_record,
)
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.slot_states import SlotState
from uringblob.store.io.checksum_budget import GUIDS_AT_ONCE
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.in_turns import acquire_changes, confirm_in_turns
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.log.writer import ActiveLog, Log, new_log_id


class CompactionStopped(BlobStoreError):
    """Raised inside a compaction when the store closes; the next opener compacts."""


@dataclasses.dataclass(eq=False, repr=False)
class Compaction:
    """One rewriting of the log, from freeze to switch."""

    _file_io: FileIO
    _index: BlobIndex
    _log_space: LogSpace
    _active: ActiveLog
    _superblocks: Superblocks
    _segments: list[SlotRun] = dataclasses.field(default_factory=list)
    _new: Log | None = None
    _stopped: bool = False
    _adopting: bool = False  # the new log is the store's, or will be when there is room to say so

    def stop(self) -> None:
        """Give up before the next step that can be given up."""
        self._stopped = True

    async def run(self) -> None:
        """Compact; if that fails, the old log is in use as before.

        :raises BlobStoreError: the reason why it was given up.
        """
        await self._fold()  # what the last compaction left, if it failed
        old = self._active.log
        blocks = blocks_for(self._index.durable_count(), self._index.slots.live_meta_cells)
        frozen = self._index.freeze()
        try:
            new = await self._write_snapshot(old, frozen, blocks)
            await self._file_io.sync("compaction")
            await self._active.exclusive.run(self._switch, old, new)
        except Exception as error:
            await self._give_up(error)
            raise
        finally:
            self._index.thaw()
        await self._fold()

    async def _fold(self) -> None:
        """Merge the delta into the thawed durable index."""
        while self._index.fold(GUIDS_AT_ONCE):
            await acquire_changes(self._file_io.checksum_budget)

    async def _give_up(self, error: Exception) -> None:
        """Keep the old log, and give back the new one's segments, which nothing names."""
        if self._adopting or self._file_io.poison_cause is not None:
            return
        if self._new is not None:
            await self._new.wait_quiet()
            self._segments = self._new.chain
        # A write that failed for another reason than room may still land, and without memory it is not
        # known what is in flight.
        no_room = isinstance(error, BlobStoreIOError) and error.errno in NO_SPACE_ERRNOS
        stopped = isinstance(error, BlobStoreError) and not isinstance(error, BlobStoreIOError)
        for segment in self._segments:
            (self._log_space.free if no_room or stopped else self._log_space.forfeit)(segment)

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise CompactionStopped("the store is being closed")

    async def _write_snapshot(self, old: Log, frozen: Iterator[tuple[bytes, int]], blocks: int) -> Log:
        seq = old.seq
        await self._file_io.ready()
        self._allocate_segments(blocks + 1)  # one more for the CARRY
        new = self._new = await self._empty_log(old)
        records = packed(set_record(guid, entry) for guid, entry in frozen)
        for first in range(0, blocks, tuning.SNAPSHOT_BLOCKS_AT_ONCE):
            self._check_not_stopped()
            part = range(first, min(first + tuning.SNAPSHOT_BLOCKS_AT_ONCE, blocks))
            runs = await new.encode_group(BlockType.SNAPSHOT, seq, records, blocks, blocks=part)
            await new.write(runs, "writing a snapshot")
            new.skip(len(part))
        return new

    def _allocate_segments(self, blocks: int) -> None:
        """Allocate segments for so many blocks, and a tail."""
        space = self._log_space
        blocks_per_slot = space.page_size // BLOCK_SIZE
        while blocks > 0:
            segment = space.allocate(min(space.segment_granules, space.granules_for(blocks)))
            self._segments.append(segment)
            blocks -= segment.slots * blocks_per_slot - 1
        self._segments.append(space.allocate(space.segment_granules))

    async def _empty_log(self, old: Log) -> Log:
        """Zero and link the fresh segments; nothing names them yet, so nothing is flushed."""
        *segments, tail = self._segments
        new = Log(
            self._file_io,
            store_id=old.store_id,
            log_id=new_log_id(),
            page_size=old.page_size,
            segments=segments,
            tail=tail,
            position=(0, 1),
            seq=old.seq,
            space=self._log_space,
        )
        for index, (segment, successor) in enumerate(itertools.pairwise(self._segments)):
            await new.zero(segment)
            header = new.encode_header(index, segment, successor)
            await self._file_io.write(new.offset_of(segment), header, "compaction")
        await new.zero(tail)
        return new

    async def _switch(self, old: Log, new: Log) -> None:
        """Make the new log the store's; until this returns the caller keeps groups from being written."""
        await self._file_io.ready()
        self._check_not_stopped()
        await self._superblocks.check_ours()
        await self._carry(old, new)
        upgrades = self._superblocks.current.version < VERSION
        if upgrades:
            await old.wait_quiet()
        else:
            await self._write_switch(old, new)
            self._active.announce(new.seq)  # before a superblock names the new log, which begins there
            self._active.log = new
        self._adopting = True
        await self._file_io.repairs.make(lambda: self._adopt(old, new, upgrades=upgrades))

    async def _adopt(self, old: Log, new: Log, *, upgrades: bool) -> None:
        """Name the new log in both superblocks, and then free the old one's segments."""
        await self._superblocks.change(
            version=VERSION,
            log_id=new.log_id,
            head=new.segments[0],
            floor=new.seq,
            **({"log_space": tuple(self._log_space.extents)} if upgrades else {}),
        )
        while upgrades and self._superblocks.current.log_space != tuple(self._log_space.extents):
            # It grew while they were written, and was not recorded: that begins with version 2.
            await self._superblocks.record_extents(self._log_space.extents)
        self._active.log = new
        if upgrades:
            self._active.announce(new.seq)  # from now on readers may begin beside this writer
        # Everything up to the switch is durable for good: no group before it can be dropped.
        await confirm_in_turns(self._file_io.checksum_budget, self._index.slots, new.seq)
        for segment in old.chain:  # last, and in one step: a repair may be run again
            if upgrades:
                self._index.slots.move_run(segment, SlotState.FREE)
            else:
                self._log_space.free(segment)

    async def _carry(self, old: Log, new: Log) -> None:
        delta = self._index.delta()
        records = packed(delete_record(g) if e is None else set_record(g, e) for g, e in delta.items())
        seq, blocks = old.seq + 1, blocks_for(len(delta), self._index.delta_meta_cells)
        await new.ensure_room(blocks)
        runs = await new.encode_group(BlockType.CARRY, seq, records, blocks)
        await new.write(runs, "compaction")
        await self._file_io.sync("compaction")
        new.accept(seq, runs)
        new.group_blocks = 0

    async def _write_switch(self, old: Log, new: Log) -> None:
        await old.wait_quiet()
        await old.ensure_room(1)
        head = new.segments[0]
        record = link_record(new.log_id, head.slot, head.slots, 0)
        runs = [old.encode_small_group(BlockType.SWITCH, new.seq, [record])]
        try:
            await old.write(runs, "switching the log")
        except BlobStoreError as error:
            await old.undo_failed(error, runs)
            raise
        await self._file_io.sync("compaction")
