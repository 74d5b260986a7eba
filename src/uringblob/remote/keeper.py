"""Maps and garbage: what keeps opening short and the bucket small.

``docs/remote-format.md``, rules 12 to 18.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any

from uringblob.errors import BlobStoreError
from uringblob.logs import logger
from uringblob.remote.bucket import BucketError, KeyMissing
from uringblob.remote.format import (
    CLOCK,
    EPOCH_BYTES,
    FRAMES,
    HEAD,
    LEASES,
    LOG,
    MAP,
    MAPS,
    Header,
    decode_lease,
    frame_key,
    map_key,
    number_in,
    pieces,
    sealed,
)
from uringblob.remote.history import RECORDS_AT_ONCE
from uringblob.remote.writer import NONCE_BYTES, Writer

#: Dead frames that are worth a collection: one request deletes so many.
DEAD_MIN = 1000


class Keeper:
    """Writes a map each ``compact_after`` groups, and deletes what nobody needs, one at a time.

    :param lease_key: this store's own lease, which keeps nothing from its own collector.
    :param oldest: returns the number of the oldest state that this store's snapshots need, or of the present.
    """

    def __init__(
        self, writer: Writer, lease_key: str, oldest: Callable[[], int], *, compact_after: int, grace_s: float
    ) -> None:
        self.compactions = self.collected = 0
        self._writer, self._history, self._requests = writer, writer.history, writer.history.requests
        self._lease_key, self._oldest = lease_key, oldest
        self._compact_after, self._grace_s = compact_after, grace_s
        self._took_over = self._history.seq
        self._swept = False
        #: The horizon that ``head`` has, since when at the latest, and the one that is old enough.
        self._horizon, self._since_s = self._history.head.horizon, self._now_s()
        self._ripe = 0
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # -- in the background --------------------------------------------------------------------

    def consider(self) -> None:
        """Begin what is due; after each group."""
        writer, history = self._writer, self._history
        if self._task is not None or writer.fenced is not None:
            return
        compacts = history.seq - history.head.seq >= self._compact_after
        ripe = self._now_s() - self._since_s >= self._grace_s
        if compacts or (ripe and len(writer.dead) >= DEAD_MIN):
            self._task = asyncio.get_running_loop().create_task(self._run(compacts=compacts))

    async def _run(self, *, compacts: bool) -> None:
        try:
            if compacts:
                await self.compact()
            await self.collect()
        except (BucketError, BlobStoreError) as error:
            logger.warning(
                "%s: the map was not written, or garbage not deleted; a later group tries again: %s",
                self._requests.name,
                error,
                extra={"event": "collection_failed", "path": self._requests.name},
            )
        finally:
            self._task = None

    async def wait_idle(self) -> None:
        """Wait for what runs in the background."""
        if self._task is not None:
            await asyncio.wait([self._task])

    # -- maps ---------------------------------------------------------------------------------

    async def compact(self) -> None:
        """Write a map of what is in the log now, and have ``head`` name it."""
        async with self._turn:
            history = self._history
            seq, epoch, digest, blobs = history.seq, history.epoch, history.digest, history.blobs.copy()
            nonce = os.urandom(NONCE_BYTES)
            header = Header(MAP, seq, epoch, history.last_writer, nonce, digest)
            body = bytearray()
            for count, piece in enumerate(pieces(header, blobs.items(), len(blobs)), 1):
                body += piece
                if count % RECORDS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            key = map_key(seq, nonce)
            await self._requests.put(key, sealed(body))
            published = await self._publish(
                lambda head: head.seq < seq, seq=seq, epoch=epoch, digest=digest, map=key
            )
            self.compactions += published
            # Its answer was lost, and another writer changed other fields since: it is there all the same.
            if not published and history.head.map != key:
                await self._requests.delete([key])

    async def _publish(self, still: Callable[[Any], bool], **fields: Any) -> bool:
        """Change fields of ``head``; return false if it is ``still`` no longer as it must be for that."""
        history = self._history
        while still(history.head):
            head = dataclasses.replace(history.head, nonce=os.urandom(NONCE_BYTES).hex(), **fields)
            etag = await self._requests.replace(HEAD, head.encode(), history.etag)
            if etag is not None:
                history.head, history.etag = head, etag
                return True
            await history.read_head()
        return False

    # -- garbage ------------------------------------------------------------------------------

    async def collect(self) -> int:
        """Delete what no map, lease or snapshot can need; return how many objects.

        What died since the last collection is for the next one, at least ``grace_s`` later (rule 17).
        """
        async with self._turn:
            history, writer = self._history, self._writer
            await history.read_head()
            if self._now_s() - self._since_s >= self._grace_s:
                self._ripe = self._horizon
            bound = min(self._ripe, self._oldest(), await self._oldest_lease())
            doomed = [key async for key in self._covered(bound)]
            dead = [(died, name) for died, name in writer.dead if died <= bound]
            doomed += [frame_key(name) for _, name in dead]
            if sweeps := not self._swept and bound >= self._took_over:
                doomed += await self._left_behind()
            if doomed:
                await self._requests.delete(doomed)
            gone = set(dead)
            writer.dead = [each for each in writer.dead if each not in gone]
            self._swept = self._swept or sweeps
            await self._move_horizon()
            self.collected += len(doomed)
            return len(doomed)

    async def _move_horizon(self) -> None:
        """Publish the next horizon, if the last one is old enough and there is something to collect."""
        seq = self._history.seq
        nothing = self._swept and not self._writer.dead
        if self._ripe != self._horizon or seq <= self._horizon or nothing:
            return
        await self._publish(lambda head: head.horizon < seq, horizon=seq)
        self._horizon, self._since_s = seq, self._now_s()

    async def _oldest_lease(self) -> int:
        """Return the oldest state that another open store needs; delete leases that have expired."""
        await self._requests.put(CLOCK, b"")
        now: datetime | None = None
        async for listed in self._requests.list(CLOCK):
            now = listed.modified
        oldest, expired = self._history.seq, []
        async for listed in self._requests.list(LEASES):
            if listed.key == self._lease_key:
                continue
            try:
                seq, ttl_s = decode_lease((await self._requests.get(listed.key))[0])
            except KeyMissing:
                continue  # its owner has closed
            if now is not None and (now - listed.modified).total_seconds() > ttl_s:
                expired.append(listed.key)
            else:
                oldest = min(oldest, seq)
        if expired:
            await self._requests.delete(expired)
        return oldest

    async def _covered(self, bound: int) -> Any:
        """Yield groups and maps that ``head``'s map replaces: of the groups those of changes (rule 8)."""
        head = self._history.head
        async for listed in self._requests.list(LOG):
            number = number_in(listed.key)
            if number > min(bound, head.seq):
                break
            if listed.size > EPOCH_BYTES:
                yield listed.key
        async for listed in self._requests.list(MAPS):
            if number_in(listed.key) <= head.seq and listed.key != head.map:
                yield listed.key

    async def _left_behind(self) -> list[str]:
        """Return frames of older epochs that neither the map nor a snapshot has (rule 15)."""
        kept = {name for _, name in self._writer.dead}
        for count, entry in enumerate(list(self._history.blobs.values()), 1):
            kept.add(entry.frame)
            if count % RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
        keys, orphans = {frame_key(name) for name in kept}, []
        async for listed in self._requests.list(FRAMES):
            if number_in(listed.key) >= self._history.epoch:
                break
            if listed.key not in keys:
                orphans.append(listed.key)
        return orphans
