"""Who gets room in the file: the log first, then frames.

The log must be able to go on when the disk is full, or the delete that would free room could not
be recorded.  So *segments* (equal runs of slots) are kept in reserve for it: the next one, and
enough for a snapshot of the whole map.  Frames get a slot only while the reserve is complete.

Growth is allocation, not just length, where the file system can (fallocate): lack of room shows
when a slot is handed out, before anything is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from uringblob import transfers
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreIOError
from uringblob.store.format import BLOCK_SIZE, RECORDS_PER_BLOCK, Segment
from uringblob.store.job import Lock
from uringblob.store.medium import Medium
from uringblob.store.slots import SlotState, SlotTable

SEGMENT_BYTES_MIN = 256 * 1024
GROWTH_BYTES_MAX = 64 * 1024 * 1024


def segment_slots(page_size: int) -> int:
    """Return how many slots make one log segment."""
    return max(1, SEGMENT_BYTES_MIN // page_size)


def records_per_segment(page_size: int) -> int:
    """Return how many records one log segment holds; its first block is its header."""
    blocks = segment_slots(page_size) * page_size // BLOCK_SIZE - 1
    return blocks * RECORDS_PER_BLOCK


class Space:
    """Hands out slots and segments, growing the file when there are none.

    ``records`` says how many records a snapshot would hold now.  Two remedies help a full disk:
    ``confirm`` writes an empty group, after which slots freed by the last one may be reused;
    ``compact`` makes the log as short as it can be, and returns false if it is that already.
    """

    def __init__(
        self,
        medium: Medium,
        slots: SlotTable,
        page_size: int,
        *,
        records: Callable[[], int],
        confirm: Callable[[], Awaitable[None]],
        compact: Callable[[], Awaitable[bool]],
    ) -> None:
        self._medium = medium
        self._slots = slots
        self._page_size = page_size
        self._records = records
        self._confirm = confirm
        self._compact = compact
        self._segment_slots = segment_slots(page_size)
        self._records_per_segment = records_per_segment(page_size)
        self._reserve: list[Segment] = []
        self._growing = Lock()

    def __repr__(self) -> str:
        return f"<Space reserve={len(self._reserve)}/{self.segments_wanted(0)} {self._slots!r}>"

    # --- frames --------------------------------------------------------------------------

    def take_ready(self, count: int) -> Segment | None:
        """Hand out one run of ``count`` slots if there is one and nothing has to be done for it first."""
        if self._medium.poison_cause is not None or not self._reserve_complete(count):
            return None
        return self._slots.take_run(count, SlotState.WRITING)

    async def take_frames(self, count: int) -> list[Segment]:
        """Hand out ``count`` slots for new frames, as one run where that can be.

        :raises BlobStoreIOError: ENOSPC, EDQUOT or EFBIG; nothing was handed out.
        """
        remedies = iter((self._confirm_waiting, self._compact))
        while True:
            try:
                return self._trusted(await self._try_take_frames(count))
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS:
                    raise
                refusal = error
            for remedy in remedies:
                if await remedy():
                    break
            else:
                raise refusal

    async def _confirm_waiting(self) -> bool:
        """Slots freed by the last group wait for the next one: write it now."""
        if not self._slots.waiting:
            return False
        try:
            await self._confirm()
        except BlobStoreIOError as error:
            if error.errno not in NO_SPACE_ERRNOS:
                raise
            return False  # there is no room even for that: the next remedy
        return True

    def _trusted(self, runs: list[Segment]) -> list[Segment]:
        """Hand out nothing any more once the store is poisoned.

        A slot may have become free because a group failed; whether the medium holds that group,
        and so names the slot, is what is unknown.
        """
        if self._medium.poison_cause is not None:
            for run in runs:
                self.give_back(run, SlotState.FREE)
            self._medium.check_trusted()
        return runs

    async def _try_take_frames(self, count: int) -> list[Segment]:
        slots = self._slots
        if self._reserve_complete(count):
            run = slots.take_run(count, SlotState.WRITING)
            if run is not None:
                return [run]
        async with self._growing:
            await self._refill(count)
            run = slots.take_run(count, SlotState.WRITING)
            if run is not None:
                return [run]
            # While the file grows, others take slots: look again after every step.
            while (free := slots.count(SlotState.FREE)) < count or free * 4 < slots.limit:
                try:
                    await self._grow(count, at_least=max(0, count - free))
                except BlobStoreIOError:
                    if slots.count(SlotState.FREE) < count:
                        raise
                    break
                run = slots.take_run(count, SlotState.WRITING)
                if run is not None:
                    return [run]
            return slots.take_pieces(count, SlotState.WRITING)

    def give_back(self, run: Segment, state: SlotState) -> None:
        """Frames that no record names: their slots are ``FREE`` again, or ``BAD``."""
        self._slots.move_run(run, state)

    # --- the log's reserve ---------------------------------------------------------------

    def segments_wanted(self, more_records: int) -> int:
        """Return how many segments the reserve should hold: the next one, a snapshot and its end.

        A snapshot is followed by what changed meanwhile, so there is one segment more for that.
        """
        snapshot = -(-(self._records() + more_records) // self._records_per_segment)
        return snapshot + 3

    def _reserve_complete(self, more_records: int) -> bool:
        return len(self._reserve) >= self.segments_wanted(more_records)

    async def _refill(self, more_records: int) -> None:
        while not self._reserve_complete(more_records):
            if not self._reserve_from_free():
                missing = self.segments_wanted(more_records) - len(self._reserve)
                await self._grow(missing * self._segment_slots, at_least=self._segment_slots)

    def _reserve_from_free(self) -> bool:
        run = self._slots.take_run(self._segment_slots, SlotState.RESERVE)
        if run is not None:
            self._reserve.append(run)
        return run is not None

    async def refill(self) -> None:
        """Complete the reserve if there is room; a full disk is no error here."""
        async with self._growing:
            try:
                await self._refill(0)
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS:
                    raise

    @property
    def short(self) -> bool:
        """The log took from the reserve, and nothing has replaced it yet."""
        return not self._reserve_complete(0)

    async def take_segment(self) -> Segment:
        """Hand out one segment for the log; its slots are in state ``LOG``.

        :raises BlobStoreIOError: the reserve is used up and the disk is full.
        """
        while not self._reserve and not self._reserve_from_free():
            async with self._growing:
                # Whoever held the lock may have filled the reserve with the last room there was.
                if not self._reserve and not self._reserve_from_free():
                    await self._grow(self._segment_slots, at_least=self._segment_slots)
        self._medium.check_trusted()
        segment = self._reserve.pop()
        self._slots.move_run(segment, SlotState.LOG)
        return segment

    def give_back_segment(self, segment: Segment) -> None:
        """The log no longer needs ``segment``: it completes the reserve, or is free."""
        if not self._reserve_complete(0) and segment.slots == self._segment_slots:
            self._slots.move_run(segment, SlotState.RESERVE)
            self._reserve.append(segment)
        else:
            self._slots.move_run(segment, SlotState.FREE)

    # --- growth --------------------------------------------------------------------------

    async def _grow(self, wanted: int, *, at_least: int) -> None:
        """Grow the file by about ``wanted`` slots or an eighth; by ``at_least`` if that is too much."""
        eighth = min(self._slots.limit // 8, GROWTH_BYTES_MAX // self._page_size)
        steps = sorted({max(wanted, eighth), wanted, at_least} - {0})
        while True:
            limit = self._slots.limit + steps.pop()
            what = f"growing {self._medium.path} to {limit * self._page_size} bytes"
            try:
                await transfers.grow(self._medium.engine, limit * self._page_size, what)
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS or not steps:
                    raise
            else:
                self._slots.extend(limit)
                return
