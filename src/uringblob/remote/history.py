"""The map as of one group of the log, and the way forward: what an opener, a reader and a writer read.

``docs/remote-format.md``, rules 10 and 11: a group is believed if it continues the one before it, and the
end of the log only if no map covers what was not found.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from uringblob.api.changes import Changes
from uringblob.errors import StoreCorrupt
from uringblob.guid import BlobGuid
from uringblob.remote.format import (
    CHANGES,
    HEAD,
    NO_SESSION,
    Entry,
    Head,
    Header,
    Records,
    decode_head,
    decode_header,
    decode_records,
    digest_of,
    log_key,
)
from uringblob.remote.requests import Requests

#: Groups that are asked for at once, at most; a reader that follows asks for one.
GROUPS_AT_ONCE: Final = 32
#: Records that are decoded or encoded between two turns of other tasks: about 1 ms.
RECORDS_AT_ONCE: Final = 1024
#: How often the head is read again before what it names counts as damaged.
RESTARTS_MAX: Final = 8


class History:
    """The blobs after group ``seq``; :meth:`advance` goes on to the end of the log."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests
        self.seq = self.epoch = self.digest = 0
        self.blobs: dict[bytes, Entry] = {}
        #: The session that made the last group of changes: who opened and changed nothing leaves none.
        self.last_writer = NO_SESSION
        self.head: Head
        self.etag = ""
        #: Each follower's own queue.
        self.followers: list[deque[Changes]] = []

    async def read_head(self) -> None:
        """Read ``head``.  :raises KeyMissing: there is no store."""
        body, self.etag = await self.requests.get(HEAD)
        self.head = decode_head(body, self.place(HEAD))

    def place(self, key: str) -> str:
        """Return where an object is, for messages."""
        return f"{self.requests.name}: {key}"

    async def load(self) -> None:
        """Read the map that ``head`` names, and ``head`` again if it is gone."""
        for _ in range(RESTARTS_MAX):
            if not self.head.map:
                self._become({}, Header(0, 0, 0, NO_SESSION, b""), 0)
                return
            body = await self.requests.find(self.head.map)
            if body is not None:
                where = self.place(self.head.map)
                header, count = decode_header(body, where)
                blobs: dict[bytes, Entry] = {}
                for number, (guid, entry) in enumerate(decode_records(body, count, where), 1):
                    if entry is not None:
                        blobs[guid] = entry
                    if number % RECORDS_AT_ONCE == 0:
                        await asyncio.sleep(0)
                self._become(blobs, header, header.before)
                return
            await self.read_head()
        raise StoreCorrupt(f"{self.place(self.head.map)}: head names it, and it is not there: restore it")

    def _become(self, blobs: dict[bytes, Entry], header: Header, digest: int) -> None:
        old, self.blobs, self.last_writer = self.blobs, blobs, header.session
        self.seq, self.epoch, self.digest = header.seq, header.epoch, digest
        if self.followers:
            written = [guid for guid, entry in blobs.items() if old.get(guid) != entry]
            self._note(written, [guid for guid in old if guid not in blobs])

    async def advance(self, *, protected: bool = False) -> None:
        """Apply all groups that there are.

        ``protected``: a lease keeps the groups that follow, so that a missing one is the end of the log.
        """
        window, restarts = 1, 0
        while True:
            keys = [log_key(self.seq + 1 + ahead) for ahead in range(window)]
            found = await asyncio.gather(*map(self.requests.find, keys))
            whole = True
            for body in found:
                if body is None or not whole:
                    break
                whole = self._follows(body)
            window = min(2 * window, GROUPS_AT_ONCE)
            if whole and None not in found:
                continue
            if whole and protected:
                return
            await self.read_head()
            if whole and (self.head.seq, self.head.digest) == (self.seq, self.digest):
                return
            if whole and self.head.seq < self.seq:
                return
            restarts += 1
            if not whole and restarts > RESTARTS_MAX:
                raise StoreCorrupt(
                    f"{self.place(log_key(self.seq + 1))}: it does not continue the group before it: two "
                    "writers were not kept apart; check that the bucket refuses a second create"
                )
            await self.load()
            window = 1

    def _follows(self, body: bytes) -> bool:
        """Apply the next group; return false if it does not continue the last one."""
        where = self.place(log_key(self.seq + 1))
        header, count = decode_header(body, where)
        if (header.seq, header.before) != (self.seq + 1, self.digest) or header.epoch < self.epoch:
            return False
        self.apply(header, dict(decode_records(body, count, where)), digest_of(body))
        return True

    def apply(self, header: Header, records: Records, digest: int) -> list[bytes]:
        """Apply a group that is in the log; return the names of frames that it made dead."""
        blobs, dead = self.blobs, []
        for guid, entry in records.items():
            old = blobs.pop(guid, None)
            if old is not None:
                dead.append(old.frame)
            if entry is not None:
                blobs[guid] = entry
        self.seq, self.epoch, self.digest = header.seq, header.epoch, digest
        if header.kind == CHANGES:
            self.last_writer = header.session
        if self.followers:
            written = [guid for guid, entry in records.items() if entry is not None]
            self._note(written, [guid for guid, entry in records.items() if entry is None])
        return dead

    def _note(self, written: list[bytes], deleted: list[bytes]) -> None:
        if written or deleted:
            changes = Changes(self.seq, tuple(map(BlobGuid, written)), tuple(map(BlobGuid, deleted)))
            for queue in self.followers:
                queue.append(changes)
