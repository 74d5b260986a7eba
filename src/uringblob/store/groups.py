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

import collections
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from uringblob.completion import Completion
from uringblob.errors import BlobStoreError, one_each
from uringblob.store.format import FLAG_FRAMES_SYNCED, BlockType, blocks_for, delete_record, set_record
from uringblob.store.job import Job, settle
from uringblob.store.landing import Landing
from uringblob.store.log import Log, Stretch
from uringblob.store.manifest import Change, Manifest
from uringblob.store.medium import Medium

#: Unflushed frames beyond which a group is flushed before it is logged (rule 15).
LARGE_GROUP_BYTES = 64 * 1024 * 1024
#: Members that hear in one loop iteration that their group is durable, and the bytes of their frames.
HEARD_AT_ONCE = 64
HEARD_BYTES_AT_ONCE = 2 * 1024 * 1024


class Member:
    """One caller's part of a group.

    ``collect`` returns its changes when the group is formed (and again after a failed group);
    ``landed``, awaited, says that its frames are wholly written; ``frame_bytes`` is what of them no
    flush has covered.  ``done`` resolves when all of it is durable.
    """

    def __init__(
        self,
        done: Completion[None],
        collect: Callable[[], dict[bytes, Change]],
        *,
        landed: Landing | Job[None] | None = None,
        frame_bytes: int = 0,
        forced: bool = False,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.done = done
        self.collect = collect
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
        return self._join(Member(self._completion(), self._manifest.pending_changes))

    def join_commit(
        self,
        entries: Sequence[tuple[bytes, int]],
        deletes: Sequence[bytes],
        *,
        landed: Landing | Job[None] | None,
        frame_bytes: int,
    ) -> Completion[None]:
        """Make these entries and deletions durable together, and then visible."""

        def collect() -> dict[bytes, Change]:
            return self._manifest.commit_changes(entries, deletes)

        member = Member(self._completion(), collect, landed=landed, frame_bytes=frame_bytes)
        return self._join(member)

    def join_confirm(self) -> Completion[None]:
        """Write a group even if it is empty: then the one before it is no longer the last."""
        return self._join(Member(self._completion(), dict, forced=True))

    def join_turn(self, turn: Callable[[], Awaitable[None]]) -> Completion[None]:
        """Run ``turn`` in this queue's order, with no group in flight."""
        return self._join(Member(self._completion(), dict, turn=turn))

    def _join(self, member: Member) -> Completion[None]:
        self._waiting.append(member)
        try:
            if self.idle:
                self._running = self._medium.start(self._run())
        except BaseException:
            # The caller takes its slots back: no later group may log them.
            if member in self._waiting:
                self._waiting.remove(member)
            raise
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
            member.done.fail(one_each(error))

    def _take_members(self, members: list[Member]) -> None:
        """Move who waits into ``members``, as far as they make one group, or a single turn."""
        frame_bytes = 0
        while self._waiting:
            member = self._waiting[0]
            frame_bytes += member.frame_bytes
            if members and (members[0].turn or member.turn or frame_bytes > LARGE_GROUP_BYTES):
                break
            # In both lists for a moment, never in none: should a signal handler raise, all must hear of it.
            members.append(member)
            self._waiting.popleft()
        self._crowd = max(len(members), self._crowd // 2)

    async def _write_group(self, members: list[Member]) -> None:
        self._medium.check_trusted()
        changes, losers = self._collect(members)
        if not changes and not any(member.forced for member in members):
            self._acknowledge(members)
            return
        self._manifest.begin_group(changes)
        group = _Group(self, members, changes)
        try:
            failed = await group.write()
        except BaseException as error:
            self._manifest.abort_group(changes)
            if group.begun:
                self._distrust(error)
            raise
        if failed:
            self._manifest.abort_group(changes)
            self._regroup(members, failed)
            return
        try:
            self._manifest.finish_group(changes, group.seq)
            self._manifest.drop_unlogged(losers)
            self.groups += 1
            await self._acknowledge_in_turns(members)
        except BaseException as error:
            self._distrust(error)
            raise
        # Upkeep that there is no memory to begin is begun after the next group.
        with contextlib.suppress(MemoryError):
            self._after_group()

    def _distrust(self, error: BaseException) -> None:
        """Poison the store after what no engine raises: its group may be on the medium, and it may not."""
        if isinstance(error, Exception) and not isinstance(error, BlobStoreError):
            self._medium.poison(error)

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

    def _acknowledge(self, members: list[Member]) -> None:
        for member in members:
            member.done.finish(None)

    def _collect(self, members: list[Member]) -> tuple[dict[bytes, Change], list[Change]]:
        """Merge the members' changes in order; the last one to name a guid wins.

        But a commit wins over what a flush brings, also where the flush was asked for later: the
        pending change was made before this group was formed, so at the latest during the commit.
        """
        changes: dict[bytes, Change] = {}
        losers: list[Change] = []
        for member in members:
            for guid, change in member.collect().items():
                if change.pending is not None and guid in changes and changes[guid].pending is None:
                    continue
                loser = changes.pop(guid, None)
                if loser is not None and loser.pending is None:
                    losers.append(loser)
                changes[guid] = change
        return changes, losers

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

    def __init__(self, queue: GroupQueue, members: list[Member], changes: dict[bytes, Change]) -> None:
        self._log = queue.log
        self._medium = queue.medium
        self._members = members
        self._changes = changes
        self._page_size = queue.page_size
        self.seq = queue.log.seq + 1
        self.begun = False  #: whether the medium may hold any of it

    async def write(self) -> dict[Member, BaseException]:
        """Make the group durable; or wipe it and return the members at fault with their errors.

        Raises if it is neither durable nor wiped by fault of a member: then the store is poisoned,
        or the log had no room, and all members share the error.
        """
        await self._log.ensure_room(blocks_for(len(self._changes)))
        synced, failed = await self._sync_first()
        if failed:
            return failed
        records = [
            delete_record(guid) if change.entry is None else set_record(guid, change.entry)
            for guid, change in self._changes.items()
        ]
        flags = FLAG_FRAMES_SYNCED if synced else 0
        stretches = self._log.encode_group(BlockType.GROUP, self.seq, records, flags)
        self.begun = True
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
        unsynced = sum(member.frame_bytes for member in self._members)
        for change in self._changes.values():
            if change.pending is not None and not change.pending.synced:
                unsynced += self._page_size
        if unsynced <= LARGE_GROUP_BYTES:
            return unsynced == 0, {}
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
