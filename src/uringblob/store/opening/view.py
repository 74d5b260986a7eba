"""What a read-only store shows, and how it moves on while another process writes.

A reader holds a lock that names the state it shows (:mod:`uringblob.store.range_locks`), and the writer reuses no
slot of that state.  A refresh reads the log on from where the last one ended; where the log was replaced
meanwhile, it reads the map anew and finds the difference.  The changes become visible in one step, as those of
a group do.  The lock of an older state is held until no read and no snapshot of this reader needs it.
"""

from __future__ import annotations

import errno
import time
import weakref
from collections.abc import Callable

from uringblob import tuning
from uringblob.api.changes import Changes
from uringblob.completion import Completion, persist
from uringblob.errors import BlobStoreError, BlobStoreIOError, StoreCorrupt, StoreLocked
from uringblob.guid import BlobGuid
from uringblob.store.core import Core
from uringblob.store.file import StoreFile, lock, naming, newest
from uringblob.store.format import SUPERBLOCK_OFFSETS, BlockType, Superblock, entry_slot
from uringblob.store.index.changes import Change
from uringblob.store.index.shards import Shards
from uringblob.store.index.slot_states import SlotState
from uringblob.store.io.checksum_budget import GUIDS_AT_ONCE
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Lock
from uringblob.store.log.in_turns import acquire_changes, confirm_in_turns
from uringblob.store.opening.recover import entries_of
from uringblob.store.opening.state import (
    State,
    read_alone,
    read_alone_again,
    read_beside,
    superblocks_now,
)
from uringblob.store.verify import check_metadata, check_superblock, note_error

#: Revision of the superblock in force, and the block where the next group will be.
_Seen = tuple[int, bytes]


class Follower:
    """What has changed since it was asked last: for one user of :meth:`View.follow`."""

    def __init__(self) -> None:
        self._written: dict[bytes, bool] = {}
        self._seq = 0

    def note(self, seq: int, changes: Shards[Change]) -> None:
        """Add the changes up to group ``seq``; the newest of each blob counts."""
        self._seq = seq
        for guid, change in changes.items():
            self._written[guid] = change.entry is not None

    def take(self) -> Changes | None:
        """Return what was noted, or ``None``."""
        if not self._written:
            return None
        noted, self._written = self._written, {}
        written = tuple(BlobGuid(guid) for guid, there in noted.items() if there)
        return Changes(
            self._seq, written, tuple(BlobGuid(guid) for guid, there in noted.items() if not there)
        )


class View:
    """The state of one read-only store.  Belongs to the loop's thread."""

    core: Core

    def __init__(self, file: StoreFile, file_io: FileIO, why_cached: Callable[[], str]) -> None:
        self._file = file
        self._file_io = file_io
        self._why_cached = why_cached
        self._refreshing = Lock()
        self._registered: list[int] = []
        self._seen: _Seen | None = None
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()

    # --- opening -------------------------------------------------------------------------

    async def begin(self, superblocks: list[Superblock | None], lock_timeout: float) -> State:
        """Return the state to show, registered; the file is locked, or registered for any state."""
        file, file_io, cached = self._file, self._file_io, self._why_cached()
        deadline = time.monotonic() + lock_timeout
        state: State | None
        if file.locked:
            state = await read_alone(file, file_io, superblocks, cached=cached)
        else:
            state = await read_beside(file, file_io)
        while state is None:  # the writer has ended
            await lock(file, lock_timeout, deadline, beside=True)
            if file.locked:
                state = await read_alone_again(file, file_io, self._why_cached)
            else:
                state = await read_beside(file, file_io)
        self._reader, self._position = state.found.reader, state.found.reader.position
        self.seq, self._notes = state.found.seq, state.found.notes()
        self._register(state)
        return state

    def _register(self, state: State) -> None:
        """Register the reader of ``state``, and let writers in; in version 1 they stay locked out."""
        file = self._file
        with naming(file.path, "registering a reader"):
            registered = state.superblock.version > 1 and file.locks.register(self.seq)
            if file.locks.usable:
                file.locks.release(0)
            if registered:
                self._registered.append(self.seq)
                if file.locked:
                    file.unlock()
            elif not file.locked:
                raise StoreLocked(
                    f"{file.path} has a writer, and the system refused a lock that readers beside it need: "
                    "close the store there, or open this one again"
                )

    def show(self, core: Core) -> None:
        """Go on with the store that was built of the state."""
        self.core = core
        core.index.slots.drained = self._release_older

    def _release_older(self) -> None:
        """Let go of the states before the last one, unless a read or a snapshot needs one of them."""
        if len(self._registered) > 1 and not self.core.index.slots.count(SlotState.RETIRED):
            older, self._registered = self._registered[:-1], self._registered[-1:]
            for seq in older:
                self._file.locks.release(seq)

    # --- moving on -----------------------------------------------------------------------

    async def refresh(self) -> bool:
        """Move to the newest durable state; return whether it is another one."""
        return await self._refreshing.run(self._refresh)

    async def _refresh(self) -> bool:
        self._file_io.check_not_poisoned()
        if self._file.locked:
            return False  # no writer has been let in
        self._register_at(0)  # slots of the states between this one and the newest are not kept otherwise
        try:
            return await self._go_on(self._ask())
        finally:
            self._file.locks.release(0)

    async def _go_on(self, announced: int | None) -> bool:
        state: State | None = None
        changes: Shards[Change] | None = None
        if announced is not None:
            if announced <= self.seq:
                return False
            changes = await self._read_on(announced)
            if changes is None:
                state = await read_beside(self._file, self._file_io)
        if changes is None and state is None:
            state = await self._read_alone()
        if changes is not None or state is not None:
            self._renew_notes([] if state is None else state.found.notes())
        if state is not None and state.found.seq > self.seq:
            changes = await self._difference(state.found.replay.entries)
        if changes is None:
            return False
        await self._move(state.found.seq if state is not None else announced or 0, changes, state)
        return True

    def _renew_notes(self, notes: list[str]) -> None:
        """Replace what was said of the last group."""
        kept = [note for note in self.core.notes if note not in self._notes]
        self._notes, self.core.notes = notes, [*notes, *kept]

    def _ask(self) -> int | None:
        with naming(self._file.path, "asking for its writer"):
            return self._file.locks.ask()

    async def _read_on(self, announced: int) -> Shards[Change] | None:
        """Return what the groups up to ``announced`` change; ``None``: the log has no such groups any more."""
        reader, changes, seq = self._reader, Shards[Change](), self.seq
        reader.renew()
        reader.position, reader.seq = self._position, seq
        while seq < announced:
            try:
                group = await reader.group(seq + 1, BlockType.GROUP)
            except StoreCorrupt:
                return None  # if it is damaged, reading it anew says so
            if group is None:
                return None
            changes.update((guid, _change(entry)) for guid, entry in entries_of(group))
            await acquire_changes(self._file_io.checksum_budget)
            seq += 1
        return changes

    async def _read_alone(self) -> State | None:
        """Return the state without a writer, if anything has changed; ``None``, too, while one opens."""
        file = self._file
        if self._seen is not None and await self._look() == self._seen:
            return None
        if not file.try_lock_shared():
            return None
        try:
            state = await read_alone_again(file, self._file_io, self._why_cached)
            state.found.reader.renew()
            self._seen = state.superblock.revision, await state.found.reader.peek()
            return state
        finally:
            file.unlock()

    async def _look(self) -> _Seen:
        superblocks = await superblocks_now(self._file, self._file_io)
        self._reader.renew()
        self._reader.position = self._position
        return newest(superblocks, self._file.path)[0].revision, await self._reader.peek()

    async def _difference(self, entries: Shards[int]) -> Shards[Change]:
        """Return what makes the index into ``entries``."""
        changes, budget = Shards[Change](), self._file_io.checksum_budget
        for part, theirs in enumerate(entries.parts):
            changes.update((guid, Change(entry)) for guid, entry in self.core.index.differing(part, theirs))
            await budget.acquire(len(theirs) * tuning.NAME_COST_BYTES)
        return changes

    async def _move(self, seq: int, changes: Shards[Change], state: State | None) -> None:
        """Show the state after group ``seq``, which differs by ``changes``, in one step."""
        core, index = self.core, self.core.index
        for guid in [guid for guid, change in changes.items() if change.entry is None]:
            if index.find(guid) is None:
                del changes[guid]  # it came and went
        self._register_at(seq)
        try:
            await self._take_slots(changes)
        except BaseException:
            self._file.locks.release(seq)
            self._seen = None
            raise
        try:
            await core.groups.apply_changes(changes, seq)
            index.seq = self.seq = seq
            if state is not None:
                self._reader = state.found.reader
                core.superblocks.current = state.superblock
            self._position = self._reader.position
            await confirm_in_turns(self._file_io.checksum_budget, index.slots, seq)
        except Exception as error:
            self._file_io.poison(error)  # the index has a part of it, perhaps
            raise
        self._registered.append(seq)  # not before: until here the older state is shown
        for follower in self._followers:
            follower.note(seq, changes)
        self._release_older()

    def _register_at(self, seq: int) -> None:
        with naming(self._file.path, "registering a reader"):
            if not self._file.locks.register(seq):
                self._seen = None
                text = f"{self._file.path}: the system refused a lock, and readers beside a writer need it"
                raise BlobStoreIOError(errno.ENOLCK, f"{text}: refresh again")

    async def _take_slots(self, changes: Shards[Change]) -> None:
        """Reserve the slots of ``changes``.

        :raises StoreCorrupt: the map gives a blob a slot that is taken or impossible; nothing was changed.
        """
        slots, taken = self.core.index.slots, list[int]()
        entries = (change.entry for change in changes.values() if change.entry is not None)
        in_file = self._file_io.file_size() // self.core.page_size
        for entry in entries:
            slot = entry_slot(entry)
            if slots.limit <= slot < in_file:
                slots.extend(min(in_file, slot + slot // 16 + 1))
            if slots.state(slot) is SlotState.LOG and slot >= slots.first:
                slots.move(slot, SlotState.FREE)  # it was log space when this store was opened
            if not slots.mark_used(slot, SlotState.WRITING):
                for other in taken:
                    slots.move(other, SlotState.FREE)
                raise StoreCorrupt(
                    f"{self._file.path}: a newer map gives a blob slot {slot}, which is taken or impossible. "
                    "What was shown before stays: restore the store from a copy",
                    slot * self.core.page_size,
                )
            taken.append(slot)
            if len(taken) % GUIDS_AT_ONCE == 0:
                await acquire_changes(self._file_io.checksum_budget)

    # --- following -----------------------------------------------------------------------

    def follower(self) -> Follower:
        """Return what notes the changes from now on, as long as it is referenced."""
        follower = Follower()
        self._followers.add(follower)
        return follower

    # --- verifying -----------------------------------------------------------------------

    async def check_metadata(self) -> list[BlobStoreError]:
        """Check both superblocks, and the log as it is now; return what is wrong."""
        if self._file.locked:
            return await check_metadata(self.core)
        errors: list[BlobStoreError] = []
        for offset in SUPERBLOCK_OFFSETS:
            await note_error(errors, self._check_superblock(offset), self.core)
        await note_error(errors, self._check_log(), self.core)
        return errors

    async def _check_superblock(self, offset: int) -> None:
        try:
            await check_superblock(self.core, offset)
        except StoreCorrupt:
            # Its writer was writing it, perhaps.
            alone = self._file.try_lock_shared()
            try:
                await self._pause()
                await check_superblock(self.core, offset)
            finally:
                if alone:
                    self._file.unlock()

    async def _check_log(self) -> None:
        while True:
            if self._ask() is not None and await read_beside(self._file, self._file_io) is not None:
                return
            if self._file.try_lock_shared():
                try:
                    await read_alone_again(self._file, self._file_io, self._why_cached)
                finally:
                    self._file.unlock()
                return
            await self._pause()  # a writer opens it, or has closed it just now

    async def _pause(self) -> None:
        pause: Completion[None] = Completion(loop=self._file_io.loop)
        persist(self._file_io.loop.call_later, tuning.LOCK_POLL_S, pause.resolve, None)
        await pause


def _change(entry: int) -> Change:
    return Change(entry if entry_slot(entry) else None)
