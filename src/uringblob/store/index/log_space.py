"""The slots that are kept for logs, apart from those for frames.  Pure.

A log needs contiguous room, also on a full disk: the deletion that frees room is a record in it.
Among frames there may be none (stores of version 1 grew to four times their contents for want of 64
slots side by side).  So some *extents* belong to logs for good; both superblocks list them.  Segments
are cut out of them in whole *granules*, so that every gap is long enough for a segment.

**How much.**  A compaction writes a new log with a snapshot of the map beside the old one, and the
largest group names every blob (a commit that deletes all of them).  So :meth:`LogSpace.wanted` is about
five snapshots: the one in use, the largest group, the next one, as much for ordinary groups, and a
fifth; and never less than a base.  At 4 KiB a frame, the worst case, this is 4.5 % of the frames.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from uringblob.errors import BlobStoreIOError
from uringblob.store.format import BLOCK_SIZE, SlotRun, blocks_for

#: A log segment is at least so long: its header is one block of it.
GRANULE_BYTES = 64 * 1024
#: Log space of an empty store with frames of up to 64 KiB.
BASE_BYTES = 1024 * 1024
#: Slots of log space in an empty store with larger frames.
BASE_SLOTS = 5
#: No segment is longer, unless one slot is: its zeroing is one request.
SEGMENT_BYTES_MAX = 1024 * 1024


def granule_slots(page_size: int) -> int:
    """Return how many slots make one granule."""
    return -(-GRANULE_BYTES // page_size)


def base_granules(page_size: int) -> int:
    """Return how many granules a new store keeps for its log."""
    granule = granule_slots(page_size)
    if page_size <= GRANULE_BYTES:
        # With the superblocks it is BASE_BYTES: frames begin there.
        return BASE_BYTES // (granule * page_size) - 1
    # One slot more below 512 KiB: a segment there holds few groups between two compactions.
    return BASE_SLOTS + (page_size < 512 * 1024)


class LogSpace:
    """Extents of the file that only logs use, and the free runs in them."""

    def __init__(self, page_size: int, extents: Iterable[SlotRun] = (), used: Iterable[SlotRun] = ()) -> None:
        """Take over ``extents``; ``used`` are the segments of the log in use."""
        self.page_size = page_size
        self.granule = granule_slots(page_size)
        #: Blocks of a granule that hold records, if it is a segment of its own.
        self._useful_blocks = self.granule * page_size // BLOCK_SIZE - 1
        self._base = base_granules(page_size)
        self._wanted: dict[int, int] = {}
        self._for_compaction: dict[int, int] = {}
        self.extents: list[SlotRun] = []
        self.capacity = 0  #: granules in all, less the forfeited ones
        self._free: list[SlotRun] = []  # ascending, none touching the next
        self.free_granules = 0  #: granules in no segment
        #: Up to so many records, with so many cells of metadata, the capacity suffices, and a compaction has
        #: room, as far as was asked since either changed (-1: not at all): both are monotone.
        self.suffices_up_to = self.compacts_up_to = -1
        self.suffices_with_meta = self.compacts_with_meta = 0
        for extent in extents:
            self.add(extent)
        for segment in used:
            self._cut(segment)

    def _changed(self) -> None:
        self.free_granules = sum([run.slots // self.granule for run in self._free])
        self._for_compaction.clear()  # the capacity may be another one
        self.suffices_up_to = self.compacts_up_to = -1

    # --- how much is needed --------------------------------------------------------------

    def granules_for(self, blocks: int) -> int:
        """Return how many granules hold ``blocks`` blocks, whatever segments they are cut into."""
        return -(-blocks // self._useful_blocks)

    def wanted(self, records: int, meta_cells: int = 0) -> int:
        """Return how many granules a store of ``records`` blobs with so much metadata keeps for its logs."""
        blocks = blocks_for(records, meta_cells)
        wanted = self._wanted.get(blocks)
        if wanted is None:
            wanted = self._wanted[blocks] = self._wanted_for(blocks)
        return wanted

    def _wanted_for(self, blocks: int) -> int:
        # A snapshot, a carry and a tail; a group that names every blob; another compaction.
        # (+1, +2: carry and SWITCH.)
        needed = self.granules_for(blocks + 1) + 1 + self.granules_for(blocks + 2) + 1
        if 2 * blocks + 4 > self._useful_blocks:
            needed += self.granules_for(blocks + 1) + 1
        # As much as a snapshot for ordinary groups, and a fifth because segments are not all full.
        return max(self._base, (needed + self.granules_for(blocks) - 1) * 6 // 5)

    def for_compaction(self, records: int, meta_cells: int = 0) -> int:
        """Return how many granules a compaction of ``records`` blobs takes, carry and tail included."""
        blocks = blocks_for(records, meta_cells)
        taken = self._for_compaction.get(blocks)
        if taken is None:
            taken = self._for_compaction[blocks] = self.granules_for(blocks + 2) + self.segment_granules
        return taken

    @property
    def segment_granules(self) -> int:
        """The length of a segment: so short that a few half empty ones do not count."""
        longest = max(1, SEGMENT_BYTES_MAX // (self.granule * self.page_size))
        return min(max(1, self.capacity // 24), longest)

    # --- allocation ----------------------------------------------------------------------

    def allocate(self, granules: int) -> SlotRun:
        """Cut a segment of up to ``granules`` granules out of the free space.

        :raises BlobStoreIOError: ENOSPC; callers make sure that there is room.
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
        """Return ``segment``, which no log uses any more, to the free space."""
        if not self.owns(segment):
            raise AssertionError(f"{segment} is no log space")
        self._free = _merged([*self._free, segment])
        self._changed()

    def forfeit(self, segment: SlotRun) -> None:
        """Leave ``segment`` unused until the store is reopened: a failed write may still land in it."""
        self.capacity -= segment.slots // self.granule
        self._changed()

    def owns(self, segment: SlotRun) -> bool:
        """Whether ``segment`` lies in one extent."""
        return any(extent.contains(segment) for extent in self.extents)

    def add(self, extent: SlotRun) -> None:
        """Keep ``extent``, a whole number of granules, for logs from now on."""
        self.extents = self.with_extent(extent)
        self.capacity += extent.slots // self.granule
        self._free = _merged([*self._free, extent])
        self._changed()

    def with_extent(self, extent: SlotRun) -> list[SlotRun]:
        """Return the extents with ``extent`` added."""
        return _merged([*self.extents, extent])

    # --- giving it back ------------------------------------------------------------------

    def excess_from(self, wanted: int) -> int:
        """Return the slot from which on log space is not needed, if ``wanted`` granules are.

        An eighth more stays, as growth adds, but not for its sake an extent farther behind.
        """
        # What was forfeited is in the extents, too.
        left = wanted + sum(extent.slots for extent in self.extents) // self.granule - self.capacity
        for extent in self.extents:
            if left <= 0:
                return extent.slot
            if extent.slots // self.granule >= left:
                return min(extent.end, extent.slot + (left + wanted // 8) * self.granule)
            left -= extent.slots // self.granule
        return self.extents[-1].end if self.extents else 0

    def withdraw(self, first: int) -> list[SlotRun]:
        """Take the free space from slot ``first`` on away: no log gets it from now on."""
        begins = [(max(run.slot, first), run.end) for run in self._free if run.end > first]
        taken = [SlotRun(begin, end - begin) for begin, end in begins]
        for run in taken:
            self._cut(run)
            self.capacity -= run.slots // self.granule
        return taken

    def restore(self, withdrawn: Iterable[SlotRun]) -> None:
        """Let logs have space again that was withdrawn."""
        for run in withdrawn:
            self.capacity += run.slots // self.granule
            self.free(run)

    def without(self, withdrawn: Sequence[SlotRun]) -> list[SlotRun]:
        """Return the extents without what was withdrawn."""
        kept = list(self.extents)
        for gone in withdrawn:
            kept = [part for extent in kept for part in _without(extent, gone)]
        return kept

    def give_up(self, withdrawn: Sequence[SlotRun]) -> None:
        """Keep what was withdrawn for logs no longer."""
        self.extents = self.without(withdrawn)
        self._changed()

    def _cut(self, segment: SlotRun) -> None:
        for index, run in enumerate(self._free):
            if run.contains(segment):
                self._free[index : index + 1] = _without(run, segment)
                self._changed()
                return
        raise AssertionError(f"{segment} is not free log space")


def _without(run: SlotRun, gone: SlotRun) -> list[SlotRun]:
    """Return what is left of ``run`` without ``gone``, a part of it or apart from it."""
    if not run.contains(gone):
        return [run]
    parts = SlotRun(run.slot, gone.slot - run.slot), SlotRun(gone.end, run.end - gone.end)
    return [part for part in parts if part.slots]


def _merged(runs: Iterable[SlotRun]) -> list[SlotRun]:
    """Return ``runs`` in order, with adjacent ones joined."""
    merged: list[SlotRun] = []
    for run in sorted(runs, key=lambda run: run.slot):
        if merged and merged[-1].end == run.slot:
            merged[-1] = SlotRun(merged[-1].slot, merged[-1].slots + run.slots)
        else:
            merged.append(run)
    return merged
