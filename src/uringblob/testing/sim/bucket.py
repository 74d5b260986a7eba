"""A bucket in memory whose network loses, delays and repeats requests: what the remote store is tested on.

::

    bucket = SimBucket(seed=7)
    store = await AsyncRemoteBlobStore.open(bucket.client(chance(7, 0.2)), page_size=4096)

A *client* is one machine's way to it, with faults of its own; it may die at any request.  All is decided by
seeds, so a run repeats exactly on a :class:`SimLoop`, and on asyncio's loop as long as no timer is in play.
``docs/remote-format.md`` says what a bucket must promise; with ``lies`` it breaks that.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime as dt
import enum
import errno
import random
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar

from uringblob.remote.bucket import BucketError, Buffer, KeyChanged, KeyMissing, KeyTaken, Listed

T = TypeVar("T")

#: A late or repeated request arrives after at most so many others.
LATE_MAX = 12


class BucketFault(enum.Enum):
    """What happens to a request."""

    REFUSED = "answered with an error, and not carried out"
    LOST = "lost on the way: not carried out, and not answered"
    ANSWER_LOST = "carried out, and the answer lost"
    LATE = "not answered, and carried out later"
    TWICE = "carried out and answered, and carried out again later"
    DEATH = "lost on the way, and its client with it"
    DEATH_AFTER = "carried out, and its client is gone"


class BucketRequest(NamedTuple):
    """A request, as a client's faults see it."""

    number: int  #: from 0, for each client
    method: str  #: ``get``, ``put``, ``create``, ``replace``, ``delete`` or ``list``
    key: str


#: Decides what happens to each request.
BucketFaults = Callable[[BucketRequest], "BucketFault | None"]


def no_faults(request: BucketRequest) -> BucketFault | None:  # noqa: ARG001 - of BucketFaults
    """Let every request through."""
    return None


def chance(seed: int, rate: float, in_a_row: int = 2) -> BucketFaults:
    """Return faults for a share of the requests, and at most ``in_a_row`` for what one task tries again."""
    dice = random.Random(f"chance {seed}")
    rows: weakref.WeakKeyDictionary[Any, collections.Counter[BucketRequest]] = weakref.WeakKeyDictionary()
    kinds = [fault for fault in BucketFault if fault not in (BucketFault.DEATH, BucketFault.DEATH_AFTER)]

    def decide(request: BucketRequest) -> BucketFault | None:
        row = rows.setdefault(asyncio.current_task(), collections.Counter())
        same = request._replace(number=0)
        if row[same] >= in_a_row or dice.random() >= rate:
            row[same] = 0
            return None
        row[same] += 1
        return dice.choice(kinds)

    return decide


@dataclasses.dataclass(frozen=True)
class _Object:
    body: bytes
    etag: str
    modified: dt.datetime


class SimBucket:
    """The bucket itself; :meth:`client` returns what a store is opened on.

    :param list_lag: listings show the state as of so many requests ago.
    :param lies: methods whose condition is not checked: ``create``, ``replace``.
    :param clock: seconds; times of change are its.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        name: str = "sim://bucket",
        list_lag: int = 0,
        lies: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.clock = name, clock
        self.objects: dict[str, _Object] = {}
        #: Requests that were carried out, by method.
        self.served: collections.Counter[str] = collections.Counter()
        self.dice = random.Random(f"bucket {seed}")
        self._list_lag, self._lies = list_lag, frozenset(lies)
        self._listed: dict[str, Listed] = {}
        self._unlisted: collections.deque[tuple[int, str, Listed | None]] = collections.deque()
        self._late: list[tuple[int, Callable[[], object]]] = []
        self._etags = 0

    def client(self, faults: BucketFaults = no_faults) -> SimClient:
        """Return a way to this bucket."""
        return SimClient(self, faults)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that there are, whatever a listing shows."""
        return sorted(key for key in self.objects if key.startswith(prefix))

    def deliver(self) -> None:
        """Carry out all requests that are late."""
        while self._late:
            self._carry_out(self._late.pop(0)[1])

    # -- what clients do ----------------------------------------------------------------------

    def serve(self, method: str, act: Callable[[], T]) -> T:
        """Carry out a request, after those whose time has come."""
        now = self.served.total()
        due = [act for at, act in self._late if at <= now]
        self._late = [(at, act) for at, act in self._late if at > now]
        for late in due:
            self._carry_out(late)
        self.served[method] += 1
        return act()

    def postpone(self, act: Callable[[], object]) -> None:
        """Carry out a request later."""
        self._late.append((self.served.total() + self.dice.randrange(1, LATE_MAX), act))

    def _carry_out(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (KeyMissing, KeyTaken, KeyChanged):
            return  # nobody waits for the answer

    def set(self, key: str, body: bytes) -> str:
        """Make or overwrite an object; return its ETag."""
        self._etags += 1
        modified = dt.datetime.fromtimestamp(self.clock(), dt.timezone.utc)
        self.objects[key] = _Object(body, f'"{self._etags}"', modified)
        self._unlisted.append((self.served.total(), key, Listed(key, len(body), modified)))
        return self.objects[key].etag

    def get(self, key: str) -> _Object:
        """Return an object."""
        try:
            return self.objects[key]
        except KeyError:
            raise KeyMissing(f"{self.name}: {key}") from None

    def create(self, key: str, body: bytes) -> None:
        """Make an object if there is none."""
        if key in self.objects and "create" not in self._lies:
            raise KeyTaken(f"{self.name}: {key}")
        self.set(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Replace an object that has this ETag."""
        there = self.objects.get(key)
        if "replace" not in self._lies and (there is None or there.etag != etag):
            raise KeyChanged(f"{self.name}: {key}")
        return self.set(key, body)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects."""
        for key in keys:
            if self.objects.pop(key, None) is not None:
                self._unlisted.append((self.served.total(), key, None))

    def list(self, prefix: str, after: str) -> list[Listed]:
        """Return what a listing shows."""
        while self._unlisted and self._unlisted[0][0] <= self.served.total() - self._list_lag:
            _, key, listed = self._unlisted.popleft()
            self._listed.pop(key, None)
            if listed is not None:
                self._listed[key] = listed
        return [self._listed[key] for key in sorted(self._listed) if key.startswith(prefix) and key > after]


class SimClient:
    """A ``Bucket``: one machine's way to a :class:`SimBucket`."""

    def __init__(self, bucket: SimBucket, faults: BucketFaults) -> None:
        self.bucket, self.faults, self.name = bucket, faults, bucket.name
        #: Requests that were sent.
        self.sent: list[BucketRequest] = []
        self.dead = False
        #: A store on it makes the requests of its protocol alone; false: it probes first, as any bucket.
        self.probed = True
        #: Awaited before each request, if set: its client sleeps there.
        self.before: Callable[[BucketRequest], Awaitable[object]] | None = None

    async def get(self, key: str) -> tuple[bytes, str]:
        there = await self._ask("get", key, lambda: self.bucket.get(key))
        return there.body, there.etag

    async def put(self, key: str, body: Buffer) -> None:
        sent = bytes(body)
        await self._ask("put", key, lambda: self.bucket.set(key, sent))

    async def create(self, key: str, body: Buffer) -> None:
        sent = bytes(body)
        await self._ask("create", key, lambda: self.bucket.create(key, sent))

    async def replace(self, key: str, body: Buffer, etag: str) -> str:
        sent = bytes(body)
        return await self._ask("replace", key, lambda: self.bucket.replace(key, sent, etag))

    async def delete(self, keys: Sequence[str]) -> None:
        doomed = list(keys)
        await self._ask("delete", doomed[0] if doomed else "", lambda: self.bucket.delete(doomed))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        for listed in await self._ask("list", prefix, lambda: self.bucket.list(prefix, after)):
            yield listed

    async def aclose(self) -> None:
        """Nothing to end."""

    # -- the way ------------------------------------------------------------------------------

    async def _ask(self, method: str, key: str, act: Callable[[], T]) -> T:
        request = BucketRequest(len(self.sent), method, key)
        self.sent.append(request)
        if self.before is not None:
            await self.before(request)
        await self._travel(request)
        fault = self.faults(request)
        if fault is BucketFault.REFUSED:
            raise BucketError(errno.EBUSY, f"{self.name}: {method} {key}: refused: try again")
        if fault is BucketFault.DEATH:
            self.dead = True
        if fault in (BucketFault.LOST, BucketFault.DEATH):
            self._lose(request)
        if fault is BucketFault.LATE:
            self.bucket.postpone(act)
            self._lose(request)
        result = self.bucket.serve(method, act)
        if fault is BucketFault.TWICE:
            self.bucket.postpone(act)
        if fault is BucketFault.DEATH_AFTER:
            self.dead = True
        if fault in (BucketFault.ANSWER_LOST, BucketFault.DEATH_AFTER):
            self._lose(request)
        await self._travel(request)
        return result

    async def _travel(self, request: BucketRequest) -> None:
        for _ in range(self.bucket.dice.randrange(1, 4)):
            await asyncio.sleep(0)
        if self.dead:
            self._lose(request)

    def _lose(self, request: BucketRequest) -> Any:
        raise BucketError(
            errno.ETIMEDOUT,
            f"{self.name}: {request.method} {request.key}: no answer: look at the network, and try again",
            maybe_done=True,
        )
