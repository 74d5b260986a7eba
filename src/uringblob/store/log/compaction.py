"""Rewriting the log as a snapshot of the durable map, while commits go on (rule 9).

1. Freeze the durable map at sequence number S and write it into fresh segments: a SNAPSHOT.
   Commits go on in the old log; what they change is collected beside the frozen map.
2. Take a turn in the group queue, so that no group is in flight.  Write the collected changes
   behind the snapshot, as one CARRY; flush.
3. Write a SWITCH group into the old log: "goes on in log X at Y"; flush.  From here on the new
   log is the store's log, whichever superblock an opener finds.
4. Rewrite both superblocks, one after the other, each flushed.  Only now the old segments are
   free.

A store of version 1 is upgraded by the same way, before its first change: its log's segments lie
among the frames, the new log in log space.  It needs no SWITCH, which a release that knows version 1
only would follow into a log it cannot judge: until the second superblock is durable no group is
written, so the old log and the new one say the same.

Until step 3 everything can be given up without a trace; a SWITCH for which there was no room is
wiped.  Step 4 for which there is no room is due before anything else changes.  From step 3 on any
other failure poisons.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError
from uringblob.store.format import (
    BLOCK_SIZE,
    RECORDS_PER_BLOCK,
    VERSION,
    BlockType,
    SlotRun,
    blocks_for,
    delete_record,
    link_record,
    set_record,
)
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.slots import SlotState
from uringblob.store.io.checksum_budget import CHANGE, GUIDS_AT_ONCE
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.group_commit import GroupQueue
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.log.writer import Log, new_log_id

#: Blocks encoded in one go: about a millisecond of the loop's time.
_BLOCKS_AT_ONCE = 8


class CompactionStopped(BlobStoreError):
    """The store is being closed: its next opener compacts."""


class Compaction:
    """One rewriting of the log, from freeze to switch."""

    def __init__(
        self,
        medium: FileIO,
        index: BlobIndex,
        log_space: LogSpace,
        queue: GroupQueue,
        superblocks: Superblocks,
    ) -> None:
        self._medium = medium
        self._index = index
        self._log_space = log_space
        self._queue = queue
        self._superblocks = superblocks
        self._segments: list[SlotRun] = []
        self._new: Log | None = None
        self._stopped = False
        self._failed = False
        self._dropped = False
        self._adopting = False  # the new log is the store's, or will be when there is room to say so

    def stop(self) -> None:
        """Give up before the next step that can be given up."""
        self._stopped = True

    async def run(self) -> None:
        """Compact; raises what made it give up, with the old log in use as before."""
        await self._fold()  # what the last one left, if it failed
        old = self._queue.log
        base_seq = old.seq
        records = self._index.durable_count()
        frozen = self._index.freeze()
        try:
            new = await self._write_snapshot(old, frozen, records, base_seq)
            await self._medium.sync("compaction")
            await self._queue.run_exclusive(lambda: self._switch(old, new), first=True)
        except GeneratorExit:
            self._dropped = True  # the store was dropped, not closed: nothing may be awaited any more
            raise
        except BlobStoreIOError as error:
            # A write that failed for another reason than room may still land, whenever it likes.
            self._failed = error.errno not in NO_SPACE_ERRNOS
            raise
        except BlobStoreError:
            raise
        except BaseException:
            self._failed = True  # no memory, say: what was asked for before that may still be in flight
            raise
        finally:
            self._index.thaw()
            if not self._adopting and self._medium.poison_cause is None:
                await self._give_up()
        await self._fold()

    async def _fold(self) -> None:
        """Bring what changed meanwhile into the map."""
        budget = self._medium.checksum_budget
        while self._index.fold(GUIDS_AT_ONCE):
            if not budget.try_acquire(GUIDS_AT_ONCE * CHANGE):
                await budget.acquire(GUIDS_AT_ONCE * CHANGE)

    async def _give_up(self) -> None:
        """The old log stays: nothing names the new one's segments, so others may have them."""
        if self._dropped:
            return
        if self._new is None:
            segments = self._segments
        else:
            await self._new.wait_quiet()
            segments = self._new.chain
        for segment in segments:
            (self._log_space.forfeit if self._failed else self._log_space.free)(segment)

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise CompactionStopped("the store is being closed")

    async def _write_snapshot(
        self, old: Log, frozen: Iterator[tuple[bytes, int]], records: int, seq: int
    ) -> Log:
        blocks = blocks_for(records)
        await self._medium.ready()
        self._allocate_segments(blocks + 1)  # one more for the CARRY
        new = self._new = await self._empty_log(old)
        for first in range(0, blocks, _BLOCKS_AT_ONCE):
            self._check_not_stopped()
            count = min(_BLOCKS_AT_ONCE, blocks - first)
            entries = itertools.islice(frozen, count * RECORDS_PER_BLOCK)
            stretches = new.encode_part(
                BlockType.SNAPSHOT, seq, [set_record(g, e) for g, e in entries], first, blocks
            )
            await new.write(stretches, "writing a snapshot")
            new.skip(count)
        return new

    def _allocate_segments(self, blocks: int) -> None:
        """Take segments for so many blocks, and a tail."""
        space = self._log_space
        blocks_per_slot = self._queue.page_size // BLOCK_SIZE
        while blocks > 0:
            segment = space.allocate(min(space.segment_granules, space.granules_for(blocks)))
            self._segments.append(segment)
            blocks -= segment.slots * blocks_per_slot - 1
        self._segments.append(space.allocate(space.segment_granules))

    async def _empty_log(self, old: Log) -> Log:
        """Zero and link the fresh segments; nothing names them yet, so nothing is flushed."""
        *segments, tail = self._segments
        new = Log(
            self._medium,
            store_id=old.store_id,
            log_id=new_log_id(),
            page_size=old.page_size,
            segments=segments,
            tail=tail,
            position=(0, 1),
            seq=old.seq,
            space=self._log_space,
        )
        for index, segment in enumerate(segments):
            await new.zero(segment)
            header = new.encode_header(index, segment, self._segments[index + 1])
            await self._medium.write(new.offset_of(segment), header, "compaction")
        await new.zero(tail)
        return new

    async def _switch(self, old: Log, new: Log) -> None:
        """The turn: no group is in flight, and none begins before this returns."""
        await self._medium.ready()
        self._check_not_stopped()
        await self._superblocks.check_ours()
        await self._carry(old, new)
        upgrades = self._superblocks.current.version < VERSION
        if upgrades:
            await old.wait_quiet()
        else:
            await self._write_switch(old, new)
            self._queue.log = new
        self._adopting = True
        await self._medium.repairs.make(lambda: self._adopt(old, new, upgrades=upgrades))

    async def _adopt(self, old: Log, new: Log, *, upgrades: bool) -> None:
        """The new log is the store's: both superblocks name it, and then the old one is free."""
        await self._superblocks.change(
            version=VERSION,
            log_id=new.log_id,
            head_slot=new.segments[0].slot,
            head_slots=new.segments[0].slots,
            floor=new.seq,
            **({"log_space": tuple(self._log_space.extents)} if upgrades else {}),
        )
        while upgrades and self._superblocks.current.log_space != tuple(self._log_space.extents):
            # It grew while they were written, and was not recorded: that begins with version 2.
            await self._superblocks.record_extents(self._log_space.extents)
        self._queue.log = new
        # Everything up to the switch is durable for good: no group before it can be dropped.
        self._index.slots.confirm(new.seq)
        for segment in old.chain:
            if upgrades:
                self._index.slots.move_run(segment, SlotState.FREE)
            else:
                self._log_space.free(segment)

    async def _carry(self, old: Log, new: Log) -> None:
        delta = self._index.delta()
        records = (delete_record(g) if e is None else set_record(g, e) for g, e in delta.items())
        seq, blocks = old.seq + 1, blocks_for(len(delta))
        await new.ensure_room(blocks)
        stretches = await new.encode_in_turns(BlockType.CARRY, seq, records, blocks)
        await new.write(stretches, "compaction")
        await self._medium.sync("compaction")
        new.accept(seq, stretches)
        new.group_blocks = 0

    async def _write_switch(self, old: Log, new: Log) -> None:
        await old.wait_quiet()
        await old.ensure_room(1)
        head = new.segments[0]
        record = link_record(new.log_id, head.slot, head.slots, 0)
        stretches = old.encode_group(BlockType.SWITCH, new.seq, [record])
        try:
            await old.write(stretches, "switching the log")
        except BlobStoreError as error:
            await old.undo_failed(error, stretches)
            raise
        await self._medium.sync("compaction")
