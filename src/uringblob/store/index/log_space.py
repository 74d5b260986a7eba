"""The slots that are kept for logs, apart from those for frames: pure, no I/O.

A log needs contiguous room, and it must have it on a disk that is full: the delete that would free
room is a record in it.  In the pool that frames fragment there is no such room (stores of version 1
grew to four times their contents for want of 64 slots side by side), so some *extents* belong to
logs for good.  Both superblocks list them, and frames never get a slot of theirs.

Segments are cut out of the extents in whole *granules*, so what lies between two segments is never
too short to be one.  An extent grows out of free slots or of the file; it is never given back here.

**How much there is.**  A compaction writes a new log beside the old one, with a snapshot of the map,
and the largest group names every blob (a commit that deletes all of them).  So :meth:`LogSpace.wanted`
is about five snapshots: the one in use, the largest group, the one to come, as much for ordinary
groups, and a fifth; and never less than a base.  At 4 KiB a frame, the worst case, five snapshots are
4.5 % of the frames.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from uringblob.errors import BlobStoreIOError
from uringblob.store.format import BLOCK_SIZE, SlotRun, blocks_for

#: A log segment is at least so long: its header is one block of it.
GRANULE_BYTES = 64 * 1024
#: Log space of a store that holds next to nothing: frames of up to 64 KiB; larger ones have more.
BASE_BYTES = 1024 * 1024
#: Slots of log space in a store of larger frames.
BASE_SLOTS = 5
#: No segment is longer, unless one slot is: its zeroing is one request.
SEGMENT_BYTES_MAX = 1024 * 1024


def granule_slots(page_size: int) -> int:
    """Return how many slots make one granule."""
    return max(1, GRANULE_BYTES // page_size)


def base_granules(page_size: int) -> int:
    """Return how many granules a new store keeps for its log."""
    granule = granule_slots(page_size)
    if page_size <= GRANULE_BYTES:
        # With the superblocks it is BASE_BYTES: frames begin there.
        return BASE_BYTES // (granule * page_size) - 1
    # One slot more below 512 KiB: a segment there holds few groups between two compactions.
    return BASE_SLOTS + (page_size < 512 * 1024)


class LogSpace:
    """Extents of the file that only logs may use, and which parts of them are free."""

    def __init__(self, page_size: int, extents: Iterable[SlotRun] = (), used: Iterable[SlotRun] = ()) -> None:
        """Take over ``extents``; ``used`` are the segments of the log in use."""
        self.page_size = page_size
        self.granule = granule_slots(page_size)
        #: Blocks of a granule that hold records, if it is a segment of its own.
        self._useful_blocks = self.granule * page_size // BLOCK_SIZE - 1
        self._base = base_granules(page_size)
        self.extents: list[SlotRun] = []
        self.capacity = 0  #: granules in all, but for those that are forfeited
        self._free: list[SlotRun] = []  # ascending, none touching the next
        for extent in extents:
            self.add(extent)
        for segment in used:
            self._cut(segment)

    def __repr__(self) -> str:
        return f"<LogSpace {self.free_granules} of {self.capacity} granules of {self.granule} slots free>"

    @property
    def free_granules(self) -> int:
        """Granules that no segment has."""
        return sum(run.slots // self.granule for run in self._free)

    # --- how much is needed --------------------------------------------------------------

    def granules_for(self, blocks: int) -> int:
        """Return how many granules hold ``blocks`` blocks, however they are cut into segments."""
        return -(-blocks // self._useful_blocks)

    def wanted(self, records: int) -> int:
        """Return how many granules a store of ``records`` blobs keeps for its log."""
        blocks = blocks_for(records)
        # After a compaction there are a snapshot, a carry and a tail; one group may name every blob; and
        # then there is another compaction.  (+1, +2: carry and SWITCH.)
        needed = self.granules_for(blocks + 1) + 1 + self.granules_for(blocks + 2) + 1
        if 2 * blocks + 4 > self._useful_blocks:
            needed += self.granules_for(blocks + 1) + 1
        # As much as a snapshot for ordinary groups, and a fifth because segments are not all full.
        return max(self._base, (needed + self.granules_for(blocks) - 1) * 6 // 5)

    def for_compaction(self, records: int) -> int:
        """Return how many granules a compaction of ``records`` blobs takes: carry, and tail, included."""
        return self.granules_for(blocks_for(records) + 2) + self.segment_granules

    @property
    def segment_granules(self) -> int:
        """How long a segment is now: so short a part of all that a few that are half empty do not count."""
        longest = max(1, SEGMENT_BYTES_MAX // (self.granule * self.page_size))
        return min(max(1, self.capacity // 24), longest)

    # --- handing out ---------------------------------------------------------------------

    def allocate(self, granules: int) -> SlotRun:
        """Cut a segment of up to ``granules`` granules out of the free space.

        :raises BlobStoreIOError: there is none; callers make sure that there is.
        """
        wanted = granules * self.granule
        run = next((run for run in self._free if run.slots >= wanted), None)
        if run is None:
            run = max(self._free, key=lambda run: run.slots, default=SlotRun(0, 0))
        if run.slots < self.granule:
            raise BlobStoreIOError(
                errno.ENOSPC, "the store's log space is used up: delete blobs, or give the disk more room"
            )
        segment = SlotRun(run.slot, min(wanted, run.slots))
        self._cut(segment)
        return segment

    def free(self, segment: SlotRun) -> None:
        """No log has ``segment`` any more.  What is no part of the extents is not this class's."""
        if not self.owns(segment):
            raise AssertionError(f"{segment} is no log space")
        self._free = _merged([*self._free, segment])

    def forfeit(self, segment: SlotRun) -> None:
        """A write into ``segment`` failed and may still land: no log has it before the store is reopened."""
        self.capacity -= segment.slots // self.granule

    def owns(self, segment: SlotRun) -> bool:
        """Tell whether ``segment`` lies in one extent."""
        return any(extent.slot <= segment.slot and segment.end <= extent.end for extent in self.extents)

    def add(self, extent: SlotRun) -> None:
        """``extent`` belongs to logs from now on; it is a whole number of granules."""
        self.extents = _merged([*self.extents, extent])
        self.capacity += extent.slots // self.granule
        self._free = _merged([*self._free, extent])

    def with_extent(self, extent: SlotRun) -> Sequence[SlotRun]:
        """Return what the extents would be with ``extent``."""
        return _merged([*self.extents, extent])

    def _cut(self, segment: SlotRun) -> None:
        for index, run in enumerate(self._free):
            if run.slot <= segment.slot and segment.end <= run.end:
                rest = (
                    SlotRun(run.slot, segment.slot - run.slot),
                    SlotRun(segment.end, run.end - segment.end),
                )
                self._free[index : index + 1] = [part for part in rest if part.slots]
                return
        raise AssertionError(f"{segment} is not free log space")


def _merged(runs: Iterable[SlotRun]) -> list[SlotRun]:
    """Return ``runs`` in order, those that touch as one."""
    merged: list[SlotRun] = []
    for run in sorted(runs, key=lambda run: run.slot):
        if merged and merged[-1].end == run.slot:
            merged[-1] = SlotRun(merged[-1].slot, merged[-1].slots + run.slots)
        else:
            merged.append(run)
    return merged
