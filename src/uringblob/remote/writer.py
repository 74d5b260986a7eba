"""The writer of a store in a bucket: its epoch, and groups, one after the other.

``docs/remote-format.md``, rules 3 to 9.  What is visible and not yet in the log is *pending*, or *flying*: in
the group that was sent and is not known to be there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from uringblob.errors import ConditionFailed, WriterFenced, one_each
from uringblob.remote.bucket import BucketError
from uringblob.remote.format import (
    CHANGES,
    EPOCH,
    Entry,
    Header,
    Records,
    decode_header,
    digest_of,
    encode,
    frame_name,
    log_key,
)
from uringblob.remote.history import History
from uringblob.remote.requests import io_error

Conditions = Sequence[tuple[bytes, "int | None"]]
NONCE_BYTES = 16


@dataclasses.dataclass
class _Commit:
    changes: Records
    conditions: Conditions
    done: asyncio.Future[None]
    refusal: ConditionFailed | None = None


@dataclasses.dataclass
class _Sent:
    """A group that was sent, and is sent again until it is known to be in the log, or not."""

    header: Header
    body: bytes
    records: Records
    commits: list[_Commit]
    replaced: list[Entry | None]  #: what a later change of the same group replaced
    maybe_there: bool = False
    looked_for: bool = False

    def of(self, commit: _Commit) -> bool:
        """Whether ``commit`` is in this group."""
        return commit.refusal is None and any(each is commit for each in self.commits)


class Writer:
    """Forms and creates groups, after :meth:`take_over`."""

    def __init__(self, history: History, session: bytes) -> None:
        self.history, self.session = history, session
        self.pending: dict[bytes, Entry | None] = {}
        self.flying: dict[bytes, Entry | None] = {}
        #: Frames that nothing will refer to, each with the group from which on that is so.
        self.dead: list[tuple[int, bytes]] = []
        self.fenced: WriterFenced | None = None
        self.commits = self.groups = 0
        #: Called after each group.
        self.on_group: Callable[[], object] = lambda: None
        self._frames = 0
        self._queue: list[_Commit] = []
        self._sent: _Sent | None = None
        self._running: asyncio.Task[Any] | None = None

    # -- the epoch ----------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Begin an epoch at the end of the log, which fences the writer before."""
        history = self.history
        while True:
            await history.advance()
            header = self._header(EPOCH, history.epoch + 1)
            body = encode(header, {})
            if await history.requests.create(log_key(header.seq), body) is None:
                await history.read_head()
                if history.head.seq < header.seq:
                    history.apply(header, {}, digest_of(body))
                    return
                await history.load()  # the number had been used and deleted

    def _header(self, kind: int, epoch: int) -> Header:
        history = self.history
        return Header(kind, history.seq + 1, epoch, self.session, os.urandom(NONCE_BYTES), history.digest)

    def name_frame(self) -> bytes:
        """Return a name that no frame had or will have."""
        self._frames += 1
        return frame_name(self.history.epoch, self.session, self._frames)

    # -- what is visible ----------------------------------------------------------------------

    def find(self, guid: bytes) -> Entry | None:
        """Return what readers of this store see."""
        for changes in (self.pending, self.flying):
            if guid in changes:
                return changes[guid]
        return self.history.blobs.get(guid)

    @property
    def needs_flush(self) -> bool:
        """Whether something is not known to be in the log."""
        return bool(self.pending) or self._sent is not None

    def change(self, changes: Records) -> None:
        """Make changes visible; the next group has them."""
        self.check()
        for guid, entry in changes.items():
            if entry is None and self.find(guid) is None:
                continue
            self.discard(self.history.seq + 1, self.pending.get(guid))
            self.pending[guid] = entry

    def discard(self, died: int, *entries: Entry | None) -> None:
        """Note frames that nothing will refer to from group ``died`` on."""
        self.dead.extend((died, entry.frame) for entry in entries if entry is not None)

    def check(self) -> None:
        """Raise if another writer took over."""
        if self.fenced is not None:
            raise one_each(self.fenced)

    # -- groups -------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return once all that is visible now is in the log."""
        self.check()
        if self.needs_flush:
            await self.commit({}, ())

    async def commit(self, changes: Records, conditions: Conditions) -> None:
        """Return once ``changes``, and all that was visible before, are in the log."""
        self.check()
        commit = _Commit(changes, conditions, asyncio.get_running_loop().create_future())
        self._queue.append(commit)
        self._start()
        await commit.done

    def _start(self) -> None:
        if self._running is None and self._queue:
            self._running = asyncio.get_running_loop().create_task(self._run())
            self._running.add_done_callback(self._ended)

    async def _run(self) -> None:
        try:
            while self._queue:
                commits, self._queue = self._queue, []
                error = await self._group(commits)
                for commit in commits:
                    refusal = error or commit.refusal
                    if refusal is None:
                        self.commits += bool(commit.changes)
                        commit.done.set_result(None)
                        continue
                    if error is None or self._sent is None or not self._sent.of(commit):
                        self.discard(0, *commit.changes.values())
                    commit.done.set_exception(one_each(refusal))
                self.on_group()
        finally:
            self._running = None

    async def _group(self, commits: list[_Commit]) -> Exception | None:
        """Form a group of the commits and settle it; return the error of all of them."""
        try:
            self.check()
            await self._settle()  # the group before, if its outcome is unknown
            self._form(commits)
            await self._settle()
        except Exception as error:  # noqa: BLE001 - raised by each of the commits
            return error
        return None

    def _form(self, commits: list[_Commit]) -> None:
        """Make a group of all that is pending and of ``commits``, as far as their conditions hold."""
        self.flying, self.pending = self.pending, {}
        records: dict[bytes, Entry | None] = dict(self.flying)
        replaced: list[Entry | None] = []
        for commit in commits:
            commit.refusal = self._refusal(commit.conditions, records)
            if commit.refusal is None:
                replaced += map(records.get, commit.changes)
                records.update(commit.changes)
        blobs = self.history.blobs
        records = {guid: entry for guid, entry in records.items() if entry is not None or guid in blobs}
        if records:
            header = self._header(CHANGES, self.history.epoch)
            self._sent = _Sent(header, encode(header, records), records, commits, replaced)
        else:
            self.flying = {}

    def _refusal(self, conditions: Conditions, records: Records) -> ConditionFailed | None:
        for guid, expected in conditions:
            entry = records[guid] if guid in records else self.history.blobs.get(guid)
            found = None if entry is None else entry.checksum
            if found != expected:
                return ConditionFailed(guid, expected, found, self.history.requests.name)
        return None

    async def _settle(self) -> None:
        """Send the group until it is known to be in the log, or not.

        :raises WriterFenced: another writer has its number.
        :raises BlobStoreIOError: ``applied`` is false if it is known not to be there; else it is sent again
            before the next one.
        """
        sent = self._sent
        if sent is None:
            return
        history, key = self.history, log_key(sent.header.seq)
        try:
            there = await history.requests.create(key, sent.body)
        except BucketError as error:
            sent.maybe_there = error.maybe_done = sent.maybe_there or error.maybe_done
            if not sent.maybe_there:
                self._land()
            raise io_error(error, f"{history.place(key)}: creating the group of this commit") from error
        if there is not None:
            self._land()
            self._fence(there, key)
        self._apply(sent)

    def _apply(self, sent: _Sent) -> None:
        """The group is in the log."""
        self._sent = None
        self.groups += 1
        history = self.history
        dead = history.apply(sent.header, sent.records, digest_of(sent.body))
        self.dead.extend((history.seq, frame) for frame in dead)
        self.discard(history.seq, *sent.replaced)
        self.flying = {}

    @property
    def unknown(self) -> bool:
        """Whether nobody knows if the last group is in the log, and nobody has looked for it."""
        return self._sent is not None and self._running is None and not self._sent.looked_for

    async def look(self) -> bool:
        """Look for a group of unknown outcome, without sending it again; return whether it is there.

        Where it is not, it may still come, and the next commit sends it again (rule 5).

        :raises WriterFenced: another writer has its number.
        :raises BucketError: nobody knows it now either.
        """
        await self.wait_idle()
        if self._sent is None:
            return False
        self._running = looking = asyncio.get_running_loop().create_task(self._look(self._sent))
        looking.add_done_callback(self._ended)
        return await looking

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Go on after a task that was cancelled before its first step: none of its own lines ran."""
        if self._running is task:
            self._running = None
            self._start()

    async def _look(self, sent: _Sent) -> bool:
        key = log_key(sent.header.seq)
        sent.looked_for = True
        try:
            there = await self.history.requests.find(key)
            if there is None:
                return False
            if there != sent.body:
                self._land()
                self._fence(there, key)
            self._apply(sent)
            self.on_group()
            return True
        except asyncio.CancelledError:
            sent.looked_for = False
            raise
        finally:
            self._running = None
            self._start()

    def _land(self) -> None:
        """The group is not in the log: what was flying is pending again, unless it was changed since."""
        self._sent = None
        for guid, entry in self.flying.items():
            if guid in self.pending:
                self.discard(self.history.seq + 1, entry)
            else:
                self.pending[guid] = entry
        self.flying = {}

    def _fence(self, there: bytes, key: str) -> None:
        where = self.history.place(key)
        header, _ = decode_header(there, where)
        self.fenced = WriterFenced(
            f"{where}: writer {header.session.hex()} took this store over in epoch {header.epoch} (this one's "
            f"is {self.history.epoch}): nothing of this call was applied; close this store, and open it again "
            "only if it is to take over in its turn"
        )
        raise one_each(self.fenced)

    async def wait_idle(self) -> None:
        """Wait for the groups in progress."""
        while self._running is not None:
            await asyncio.wait([self._running])
