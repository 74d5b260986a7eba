"""Group commit: one group at a time, everyone who waits shares the next one.

The order that makes a commit durable with one flush (docs/format.md, rules 1, 2 and 5):

1. frames go to fresh slots, the group's blocks to fresh log space, together;
2. when *all* of them are wholly written, one fdatasync;
3. when that has returned: publish, acknowledge, and only now begin the next group.

While a group is being written and flushed, the frames of the next commits are written already,
and their records wait here; they make the next group.

If a part of a group fails, its blocks are zeroed and flushed before anything else happens; the
member at fault fails and the others are put into the next group.  A group with many unflushed
frames is flushed *before* its blocks are written and says so, so that recovery need not read
gigabytes to trust it (rule 15).
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable, Iterable, Sequence

from uringblob.completion import Completion
from uringblob.errors import BlobStoreError
from uringblob.store.changes import Change
from uringblob.store.format import FLAG_FRAMES_SYNCED, BlockType, blocks_for, delete_record, set_record
from uringblob.store.job import Job, settle
from uringblob.store.landing import Landing
from uringblob.store.log import Log, Stretch
from uringblob.store.manifest import Manifest
from uringblob.store.medium import Medium
from uringblob.store.pace import CHANGE, GUIDS_AT_ONCE
from uringblob.store.shards import Mapped, mapping_for

#: Unflushed frames beyond which a group is flushed before it is logged (rule 15).
LARGE_GROUP_BYTES = 64 * 1024 * 1024
#: Members that hear in one loop iteration that their group is durable, and the bytes of their frames.
HEARD_AT_ONCE = 64
HEARD_BYTES_AT_ONCE = 2 * 1024 * 1024
#: Members of one group: as many are counted, and their frames looked for, in a millisecond.
MEMBERS_MAX = 2048
#: A group of so many changes is applied in one step.
APPLIED_AT_ONCE = 256


class Member:
    """One caller's part of a group.

    ``collect`` yields its ``size`` changes when the group is formed (and again after a failed group);
    ``flushes`` says that they are all that is pending then.
    ``landed``, awaited, says that its frames are wholly written; ``frame_bytes`` is what of them no
    flush has covered.  ``done`` resolves when all of it is durable.
    """

    def __init__(
        self,
        done: Completion[None],
        collect: Callable[[], Iterable[tuple[bytes, Change]]],
        *,
        size: int = 0,
        flushes: bool = False,
        landed: Landing | Job[None] | None = None,
        frame_bytes: int = 0,
        forced: bool = False,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.done = done
        self.collect = collect
        self.size = size
        self.flushes = flushes
        self.landed = landed
        self.frame_bytes = frame_bytes
        self.forced = forced  #: write a group even if there is no record to put into it
        self.turn = turn  #: not a group at all: run this with no group in flight


class GroupQueue:
    """The committer: forms groups out of waiting members, in order, one at a time."""

    def __init__(
        self, medium: Medium, manifest: Manifest, page_size: int, *, after_group: Callable[[], None]
    ) -> None:
        self._medium = medium
        self._manifest = manifest
        self._page_size = page_size
        self._after_group = after_group
        self._waiting: collections.deque[Member] = collections.deque()
        self._running: Job[None] | None = None
        self._crowd = 0  # how many callers shared a group of late
        self.log: Log
        self.groups = 0
        #: Held while names are listed, or a group is applied, in more than one step: neither sees the other.
        self.names_still = asyncio.Lock()

    def __repr__(self) -> str:
        state = "idle" if self.idle else "writing"
        return f"<GroupQueue {state} waiting={len(self._waiting)} groups={self.groups}>"

    @property
    def idle(self) -> bool:
        """No group is in flight and none is waiting."""
        return self._running is None or self._running.done()

    # --- joining -------------------------------------------------------------------------

    def _completion(self) -> Completion[None]:
        return Completion(loop=self._medium.loop)

    def join_flush(self) -> Completion[None]:
        """Make every change pending when the group is formed durable."""
        pending = self._manifest.pending_count
        return self._join(
            Member(self._completion(), self._manifest.pending_changes, size=pending, flushes=True)
        )

    def join_commit(
        self,
        entries: Sequence[tuple[bytes, int]],
        deletes: Sequence[bytes],
        *,
        landed: Landing | Job[None] | None,
        frame_bytes: int,
    ) -> Completion[None]:
        """Make these entries and deletions durable together, and then visible."""

        def collect() -> Iterable[tuple[bytes, Change]]:
            return self._manifest.commit_changes(entries, deletes)

        size = len(entries) + len(deletes)
        member = Member(self._completion(), collect, size=size, landed=landed, frame_bytes=frame_bytes)
        return self._join(member)

    def join_confirm(self) -> Completion[None]:
        """Write a group even if it is empty: then the one before it is no longer the last."""
        return self._join(Member(self._completion(), tuple, forced=True))

    def join_turn(self, turn: Callable[[], Awaitable[None]]) -> Completion[None]:
        """Run ``turn`` in this queue's order, with no group in flight."""
        return self._join(Member(self._completion(), tuple, turn=turn))

    def _join(self, member: Member) -> Completion[None]:
        self._waiting.append(member)
        if self.idle:
            self._running = self._medium.start(self._run())
        return member.done

    # --- the committer -------------------------------------------------------------------

    async def _run(self) -> None:
        while self._waiting:
            members: list[Member] = []
            try:
                await self._let_others_join()
                self._take_members(members)
                if members[0].turn is not None:
                    await members[0].turn()
                    members[0].done.finish(None)
                else:
                    await self._write_group(members)
            except Exception as error:  # noqa: BLE001 - every member gets it; nobody is left waiting
                self._fail(members, error)
            except GeneratorExit:
                raise  # the store was dropped, not closed, and everybody who waits with it
            except BaseException as error:
                # A signal handler raised in here, and this job ends: so does everybody's wait.
                self._fail([*members, *self._waiting], RuntimeError(f"a signal handler raised {error!r}"))
                self._waiting.clear()
                raise

    async def _let_others_join(self) -> None:
        """Callers who shared a group come back together: give them this tick, their turns at
        checksumming, and if some are still missing, the first's frames.

        Without it 64 committers fall into groups of 1 and 63, and each of the two waits for the
        other's flush, again and again.  A lone committer never waits here; and when all are there,
        the group's blocks are written while the device is busy with the frames.
        """
        if len(self._waiting) >= self._crowd:
            return
        await self._medium.next_tick()
        await self._medium.pace.turn(0)
        first = self._waiting[0].landed
        if len(self._waiting) < self._crowd and first is not None and not first.done():
            await settle([first])

    def _fail(self, members: list[Member], error: Exception) -> None:
        for member in members:
            member.done.fail(error)

    def _take_members(self, members: list[Member]) -> None:
        """Move who waits into ``members``, as far as they make one group, or a single turn."""
        frame_bytes = 0
        while self._waiting:
            member = self._waiting[0]
            frame_bytes += member.frame_bytes
            if members and (members[0].turn or member.turn or frame_bytes > LARGE_GROUP_BYTES):
                break
            if len(members) >= MEMBERS_MAX:
                break
            # In both lists for a moment, never in none: should a signal handler raise, all must hear of it.
            members.append(member)
            self._waiting.popleft()
        self._crowd = max(len(members), self._crowd // 2)

    async def _write_group(self, members: list[Member]) -> None:
        self._medium.check_trusted()
        changes: Mapped[Change] = mapping_for(sum(member.size for member in members))
        group = _Group(self, members, changes)
        self._manifest.begin_group(changes)
        try:
            await group.collect(self._manifest)
            idle = not changes and not any(member.forced for member in members)
            failed = {} if idle else await group.write()
        except BaseException:
            self._manifest.abort_group(changes)
            raise
        if failed:
            self._manifest.abort_group(changes)
            self._regroup(members, failed)
            return
        if idle:
            self._manifest.end_group()
        else:
            await self._apply(group)
        await self._acknowledge_in_turns(members)
        if not idle:
            self._after_group()

    async def _apply(self, group: _Group) -> None:
        """The group is durable: make it visible, and free what it replaced."""
        manifest, changes = self._manifest, group.changes
        try:
            if len(changes) <= APPLIED_AT_ONCE:
                manifest.finish_group(changes, group.seq)
            else:
                for number, change in enumerate(changes.values()):
                    if number % GUIDS_AT_ONCE == 0:
                        await self._turn_at_changes()
                    manifest.settle_slot(change)
                async with self.names_still:
                    manifest.show_group(changes)
                    for number, (guid, change) in enumerate(changes.items()):
                        if number % GUIDS_AT_ONCE == 0:
                            await self._turn_at_changes()
                        manifest.apply_change(guid, change, group.seq)
                    manifest.end_group()
            while manifest.slots.confirm(group.seq - 1, GUIDS_AT_ONCE):
                await self._turn_at_changes()
            for start in range(0, len(group.losers), GUIDS_AT_ONCE):
                if start:
                    await self._turn_at_changes()
                manifest.drop_unlogged(group.losers[start : start + GUIDS_AT_ONCE])
        except Exception as error:
            self._medium.poison(error)  # the log has it, and the map only a part of it
            raise
        self.groups += 1

    async def _turn_at_changes(self) -> None:
        pace = self._medium.pace
        if not pace.take(GUIDS_AT_ONCE * CHANGE):
            await pace.turn(GUIDS_AT_ONCE * CHANGE)

    async def _acknowledge_in_turns(self, members: list[Member]) -> None:
        """Let the first of many begin their next commit while the others hear of this one.

        64 who hear of it in one iteration hand their next frames of 512 KiB to the device 0.4 ms
        later, and it has nothing to do until then.  Small frames are written so quickly that the
        iterations would cost more (a quarter of the commits a second, with 4 KiB).
        """
        heard = heard_bytes = 0
        for member in members:
            if heard >= HEARD_AT_ONCE or heard_bytes >= HEARD_BYTES_AT_ONCE:
                await self._medium.next_tick()
                heard = heard_bytes = 0
            member.done.finish(None)
            heard += 1
            heard_bytes += member.frame_bytes

    def _regroup(self, members: list[Member], failed: dict[Member, BaseException]) -> None:
        for member in reversed(members):
            if member in failed:
                member.done.fail(failed[member])
            else:
                self._waiting.appendleft(member)

    # --- what a group needs --------------------------------------------------------------

    @property
    def medium(self) -> Medium:
        """The store's file."""
        return self._medium

    @property
    def page_size(self) -> int:
        """The frame size in bytes."""
        return self._page_size


class _Group:
    """One group on its way to the medium."""

    def __init__(self, queue: GroupQueue, members: list[Member], changes: Mapped[Change]) -> None:
        self._log = queue.log
        self._medium = queue.medium
        self._members = members
        self._unsynced = sum(member.frame_bytes for member in members)
        self._page_size = queue.page_size
        self.changes = changes
        self.losers: list[Change] = []  #: overruled by others in this group: no record names their frames
        self.seq = queue.log.seq + 1

    async def collect(self, manifest: Manifest) -> None:
        """Merge the members' changes in order, commits first; the last one to name a guid wins."""
        pace, number = self._medium.pace, 0
        commits = [member for member in self._members if not member.flushes]
        # All flushes bring the same.
        flushes = [member for member in self._members if member.flushes][:1]
        for member in (*commits, *flushes):
            for guid, change in member.collect():
                number += 1
                if number % GUIDS_AT_ONCE == 0 and not pace.take(GUIDS_AT_ONCE * CHANGE):
                    await pace.turn(GUIDS_AT_ONCE * CHANGE)
                loser = manifest.join_group(self.changes, guid, change)
                if loser is not None:
                    self.losers.append(loser)
                if change.pending is not None and not change.pending.synced:
                    self._unsynced += self._page_size

    async def write(self) -> dict[Member, BaseException]:
        """Make the group durable; or wipe it and return the members at fault with their errors.

        Raises if it is neither durable nor wiped by fault of a member: then the store is poisoned,
        or the log had no room, and all members share the error.
        """
        blocks = blocks_for(len(self.changes))
        await self._log.ensure_room(blocks)
        synced, failed = await self._sync_first()
        if failed:
            return failed
        records = (
            delete_record(guid) if change.entry is None else set_record(guid, change.entry)
            for guid, change in self.changes.items()
        )
        flags = FLAG_FRAMES_SYNCED if synced else 0
        if blocks == 1:
            stretches = self._log.encode_group(BlockType.GROUP, self.seq, list(records), flags)
        else:
            stretches = await self._log.encode_in_turns(BlockType.GROUP, self.seq, records, blocks, flags)
        written = self._medium.start(self._log.write(stretches))
        failed = await self._unlanded()
        log_errors = await settle([written])
        if log_errors:
            await self._log.settle_failed(log_errors[0], stretches)
            raise log_errors[0]
        if failed:
            await self._wipe(stretches)
            return failed
        await self._medium.sync(f"commit of group {self.seq}")
        self._log.accept(self.seq, stretches)
        return {}

    async def _sync_first(self) -> tuple[bool, dict[Member, BaseException]]:
        """Flush a large group's frames before its blocks; tell whether all frames are flushed."""
        if self._unsynced <= LARGE_GROUP_BYTES:
            return self._unsynced == 0, {}
        failed = await self._unlanded()
        if not failed:
            await self._medium.sync(f"frames of group {self.seq}")
        return True, failed

    async def _unlanded(self) -> dict[Member, BaseException]:
        """Wait for every member's frames; return the members whose frames failed."""
        rest: list[tuple[Member, Landing | Job[None]]] = []
        for member in reversed(self._members):  # when the last one's have landed, mostly all have
            landed = member.landed
            if isinstance(landed, Landing):
                if not landed.answer.done():
                    await settle([landed.answer])
                if landed.whole:
                    landed = member.landed = None  # it holds the caller's buffers, who may release them soon
                else:
                    landed.finish_short()  # all of them together
            if landed is not None:
                rest.append((member, landed))
        failed: dict[Member, BaseException] = {}
        for member, landed in rest:
            errors = await settle([landed])
            if errors:
                failed[member] = errors[0]
            else:
                member.landed = None
        return failed

    async def _wipe(self, stretches: list[Stretch]) -> None:
        try:
            await self._log.wipe(stretches)
        except BlobStoreError as error:
            self._medium.poison(error)
            raise
