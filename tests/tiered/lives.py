"""Lives of a tier on a simulated disk and a simulated bucket, with the power cut at any step of either.

Each *actor* changes blobs of its own, one call after the other, so its history is a list of states.  A state
of the store is a *prefix* if, of each actor, it shows one of those states, and nothing is missing that was over
before something in it began.  Every group that reaches the bucket is judged so, by its bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import random
from unittest import mock

from sim.lives import lend, lend_afresh
from uringblob import BlobNotFound, BlobStoreIOError
from uringblob.checksums import frame_checksum
from uringblob.remote import AsyncRemoteBlobStore, BucketError
from uringblob.remote.format import CHANGES, decode_header, decode_records
from uringblob.store.log import compaction
from uringblob.store.opening import create as creation
from uringblob.testing import SimDisk, SimLoop, new_image, open_sim_store
from uringblob.testing.sim.bucket import SimBucket, chance, no_faults
from uringblob.tiered import AsyncTieredBlobStore
from uringblob.tiered.records import is_reserved

PAGE = 4096
KEYS = 4


def frame(stamp: int) -> bytes:
    return stamp.to_bytes(8, "little") * (PAGE // 8)


def meta_of(stamp: int) -> bytes:
    return b"" if stamp % 3 else stamp.to_bytes(4, "big")


@contextlib.contextmanager
def seeded_ids(rng: random.Random):
    """Names and numbers that are drawn come from the seed, so that a replay is exact."""

    def next_id() -> int:
        return rng.getrandbits(64) | 1

    with (
        mock.patch.object(os, "urandom", rng.randbytes),
        mock.patch.object(compaction, "new_log_id", next_id),
        mock.patch.object(creation, "new_log_id", next_id),
        mock.patch.object(creation.secrets, "token_bytes", rng.randbytes),
    ):
        yield


class PowerCut(Exception):
    """The machine is off."""


class Power:
    """Counts the steps of disk and bucket, and cuts the power at one of them."""

    def __init__(self, at: int | None) -> None:
        self.at, self.steps, self.off = at, 0, False
        self.capture = lambda: None

    def step(self, _why: str = "") -> None:
        if not self.off:
            self.steps += 1
            if self.steps == self.at:
                self.off = True
                self.capture()

    def poll(self, _idle: bool) -> bool:
        if self.off:
            raise PowerCut
        return False


@dataclasses.dataclass
class Op:
    start: int
    end: int | None = None


class Actor:
    """Changes its own blobs; ``states[n]`` is what its first ``n`` calls lead to."""

    def __init__(self, number: int) -> None:
        self.keys = [bytes([number, key]) * 8 for key in range(KEYS)]
        self.states: list[dict[bytes, int]] = [{}]
        self.ops: list[Op] = []
        self.durable = 0  #: so many are durable for certain
        self.uploaded = 0

    @property
    def now(self) -> dict[bytes, int]:
        return self.states[-1]

    def begin(self, changes: dict[bytes, int | None], tick: int) -> Op:
        state = {**self.now, **changes}
        self.states.append({key: stamp for key, stamp in state.items() if stamp is not None})
        self.ops.append(Op(tick))
        return self.ops[-1]

    def undo(self) -> None:
        self.states.pop()
        self.ops.pop()

    def index(self, shown: dict[bytes, int], what: str) -> int:
        mine = {key: shown[key] for key in self.keys if key in shown}
        assert mine in self.states, f"{what} is no state of the history: {mine}, of {self.states[-4:]}"
        return self.states.index(mine)

    def over_before(self, tick: int, of: int) -> int:
        return sum(op.end is not None and op.end < tick for op in self.ops[:of])

    def cut_to(self, count: int, tick: int) -> None:
        del self.states[count + 1 :], self.ops[count:]
        for op in self.ops:
            op.end = op.end or tick
        self.durable = count


class JudgedBucket(SimBucket):
    """Shows every group that is made to the world."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__(seed, clock=lambda: 1.7e9)
        self.world = world
        self.state: dict[bytes, tuple[int, bytes]] = {}

    def serve(self, method, act):
        self.world.power.step(method)
        if self.world.power.off:
            raise BucketError(errno.EHOSTDOWN, f"{method}: the machine is off", maybe_done=True)
        result = super().serve(method, act)
        self.world.power.step(method)
        return result

    def create(self, key: str, body: bytes) -> None:
        super().create(key, body)
        if key.startswith("log/"):
            header, count = decode_header(body, key)
            if header.kind == CHANGES:
                for guid, entry in decode_records(body, count, key):
                    if entry is None:
                        self.state.pop(guid, None)
                    elif not is_reserved(guid):
                        self.state[guid] = entry.checksum, entry.meta
                self.world.judge_remote()


class World:
    """A machine, a bucket, and what was done: life after life."""

    def __init__(self, seed: int, *, actors: int = 2, rate: float = 0.1) -> None:
        self.rng = random.Random(seed)
        self.power = Power(None)
        self.actors = [Actor(number + 1) for number in range(actors)]
        self.bucket = JudgedBucket(self, seed)
        with seeded_ids(self.rng):
            self.image = new_image(PAGE)
        self.seed, self.rate = seed, rate
        self.tick = self.stamps = 0
        self.by_checksum: dict[int, int] = {}
        self.recovering = False  #: what the crash took is not known yet
        self.lives = self.cuts = self.groups = self.refused = self.fetched = self.evicted = 0

    # -- judging ------------------------------------------------------------------------------

    def shown(self, blobs: dict[bytes, tuple[int, bytes]]) -> dict[bytes, int]:
        stamps = {guid: self.by_checksum[checksum] for guid, (checksum, _) in blobs.items()}
        for guid, (_, meta) in blobs.items():
            assert meta == meta_of(stamps[guid]), "metadata of another frame"
        return stamps

    def judge(self, shown: dict[bytes, int], what: str, *, crashed: bool = False) -> list[int]:
        """Return how many changes of each actor are shown; after a crash those not flushed may be missing."""
        unknown = shown.keys() - {key for actor in self.actors for key in actor.keys}
        assert not unknown, f"{what} has blobs that nobody wrote"
        counts = [actor.index(shown, what) for actor in self.actors]
        for actor, count in zip(self.actors, counts, strict=True):
            if count:
                began = actor.ops[count - 1].start
                for other, there in zip(self.actors, counts, strict=True):
                    missing = other.over_before(began, other.durable if crashed else len(other.ops)) - there
                    assert missing <= 0, f"{what} is a mixture: {missing} earlier changes are missing"
        return counts

    def judge_remote(self) -> None:
        self.groups += 1
        counts = self.judge(self.shown(self.bucket.state), "the bucket", crashed=self.recovering)
        for actor, count in zip(self.actors, counts, strict=True):
            assert count >= actor.uploaded, "the bucket went back"
            actor.uploaded = count

    async def shown_by(self, store) -> dict[bytes, int]:
        room, found = bytearray(PAGE), {}
        for guid in sorted(await store.list_blobs()):
            await store.read_blob(guid, room)
            stat = await store.stat_blob(guid)
            assert frame_checksum(room) == stat.checksum
            found[bytes(guid)] = stat.checksum, stat.meta
        for actor in self.actors:
            for key in actor.keys:
                assert await store.has_blob(key) == (key in found)
        return self.shown(found)

    # -- a life -------------------------------------------------------------------------------

    def live(self, calls: int, *, cut_at: int | None = None, frames_max: int | None = None) -> bool:
        """Open, change, close; return whether the power was cut."""
        self.lives += 1
        self.recovering = True
        self.power = Power(cut_at)
        loop = SimLoop()
        disk = SimDisk(self.rng.getrandbits(32), image=self.image)
        disk.on_step = self.power.step
        self.power.capture = lambda: setattr(self, "image", disk.crash(self.rng))
        loop.add_device(self.power.poll)
        client = self.bucket.client(
            chance(self.rng.getrandbits(32), self.rate, 4) if self.rate else no_faults
        )
        self.opened: list = []
        lend_afresh()
        with seeded_ids(self.rng):
            return self._live(loop, disk, client, calls, frames_max)

    def _live(self, loop: SimLoop, disk: SimDisk, client, calls: int, frames_max: int | None) -> bool:
        try:
            loop.run(self._run(loop, disk, client, calls, frames_max))
            self.image = disk.live
        except PowerCut:
            self.cuts += 1
            self._bury(loop, client)
            self.bucket.deliver()
        except BaseException:
            self._bury(loop, client)
            raise
        for tier in self.opened:
            if isinstance(tier, AsyncTieredBlobStore):
                self.fetched += tier.tier_stats().fetched
                self.evicted += tier.tier_stats().evicted
        return self.power.off

    def _bury(self, loop: SimLoop, client) -> None:
        """End the tasks of a machine that is off: what they do reaches nothing."""
        self.power.off = client.dead = True
        loop.remove_device(self.power.poll)
        loop.run(self._close_all())

    async def _close_all(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for store in reversed(self.opened):
            if not store.closed:
                with contextlib.suppress(Exception):
                    await store.aclose(flush=False)

    async def _run(self, *args) -> None:
        self.tasks = [asyncio.ensure_future(self._life(*args))]
        await self.tasks[0]

    async def _life(self, loop, disk, client, calls: int, frames_max: int | None) -> None:
        local = await open_sim_store(disk, loop, rng=disk.rng)
        self.opened.append(local)
        tier = await self._tier(local, client, frames_max)
        await self._check_recovered(tier)
        acting = [asyncio.ensure_future(self._act(actor, tier, calls)) for actor in self.actors]
        self.tasks += acting
        await asyncio.gather(*acting)
        await self._upload_all(tier)
        for actor in self.actors:
            assert actor.uploaded == len(actor.ops), "not all is uploaded"
        await tier.aclose()

    async def _tier(self, local, client, frames_max: int | None) -> AsyncTieredBlobStore:
        while True:
            with contextlib.suppress(BlobStoreIOError):
                remote = await AsyncRemoteBlobStore.open(client, page_size=PAGE)
                break
        self.opened.append(remote)
        limit = None if frames_max is None else frames_max * PAGE
        tier = AsyncTieredBlobStore(local, remote, max_local_bytes=limit)
        self.opened.append(tier)
        return await tier

    async def _upload_all(self, tier) -> None:
        for _ in range(100):
            with contextlib.suppress(BlobStoreIOError):
                before = [len(actor.ops) for actor in self.actors]
                await tier.durable_remotely()
                for actor, count in zip(self.actors, before, strict=True):
                    assert self.power.off or actor.uploaded >= count, "it is not in the bucket"
                return
        raise AssertionError("a hundred uploads have failed")

    async def _check_recovered(self, tier) -> None:
        while True:
            with contextlib.suppress(BlobStoreIOError):
                shown = await self.shown_by(tier)
                break
        for actor, count in zip(self.actors, self.judge(shown, "the tier", crashed=True), strict=True):
            assert count >= actor.durable, f"{actor.durable - count} durable changes are lost"
            assert count >= actor.uploaded, "the tier shows less than the bucket has"
            actor.cut_to(count, self.tick)
        self.recovering = False

    # -- calls --------------------------------------------------------------------------------

    async def _act(self, actor: Actor, tier, calls: int) -> None:
        snapshots: list[tuple] = []
        try:
            for _ in range(calls):
                await self._one_call(actor, tier, snapshots)
        finally:
            async with contextlib.AsyncExitStack() as ends:  # all of them, whatever one raises
                for snapshot, _ in snapshots:
                    ends.push_async_callback(snapshot.aclose)

    async def _one_call(self, actor: Actor, tier, snapshots: list[tuple]) -> None:
        choice = self.rng.randrange(12)
        if choice < 6:
            await self._commit(actor, tier)
        elif choice < 8:
            await self._write_and_flush(actor, tier)
        elif choice < 10:
            await self._look(actor, tier)
        elif choice == 10:
            with contextlib.suppress(BlobStoreIOError):
                await tier.durable_remotely()
                assert self.power.off or actor.uploaded == len(actor.ops), "it is not in the bucket"
        else:
            snapshots.append((await tier.snapshot(), actor.now))
        if snapshots and self.rng.random() < 0.3:
            await self._look_through(actor, *snapshots.pop())

    def _stamp(self) -> int:
        self.stamps += 1
        self.by_checksum[frame_checksum(frame(self.stamps))] = self.stamps
        return self.stamps

    async def _commit(self, actor: Actor, tier) -> None:
        first, *others = actor.keys
        changes: dict[bytes, int | None] = {first: self._stamp()}
        for key in others:
            if self.rng.random() < 0.3:
                changes[key] = self._stamp() if self.rng.random() < 0.6 else None
        writes = [
            (key, lend(frame(stamp)), meta_of(stamp)) for key, stamp in changes.items() if stamp is not None
        ]
        deletes = [key for key, stamp in changes.items() if stamp is None]
        await self._call(actor, changes, tier.commit(writes, deletes), durable=True)

    async def _write_and_flush(self, actor: Actor, tier) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            gone = [key for key in actor.keys[1:] if key in actor.now]
            if gone and self.rng.random() < 0.4:
                key = self.rng.choice(gone)
                await self._call(actor, {key: None}, tier.delete_blob(key), durable=False)
            else:
                key, stamp = actor.keys[0], self._stamp()
                call = tier.write_blob(key, lend(frame(stamp)), meta_of(stamp))
                await self._call(actor, {key: stamp}, call, durable=False)
        if self.rng.random() < 0.5:
            with contextlib.suppress(BlobStoreIOError):
                await tier.durable_remotely()  # which makes it durable locally first
        await tier.flush()
        if not self.power.off:
            actor.durable = len(actor.ops)

    async def _call(self, actor: Actor, changes, call, *, durable: bool) -> None:
        if self.power.off:
            call.close()
            raise PowerCut
        self.tick += 1
        op = actor.begin(changes, self.tick)
        try:
            await call
        except BlobStoreIOError as error:
            if "max_local_bytes" not in str(error):
                raise
            if not self.power.off:
                self.refused += 1
                actor.undo()
            return
        if not self.power.off:
            self.tick += 1
            op.end = self.tick
            if durable:
                actor.durable = len(actor.ops)

    async def _look(self, actor: Actor, store, want: dict[bytes, int] | None = None) -> None:
        want = actor.now if want is None else want
        names = {bytes(name) for name in await store.list_blobs()}
        assert {key for key in actor.keys if key in names} == want.keys(), (
            "it lists other blobs than there are"
        )
        for key in actor.keys:
            room = bytearray(PAGE)
            try:
                await store.read_blob(key, room)
            except BlobNotFound:
                assert key not in want, "a blob is missing"
            except BlobStoreIOError:
                continue  # the bucket cannot be reached
            else:
                assert key in want, "a deleted blob is back"
                assert room == frame(want[key]), "an older frame is back"
                assert (await store.stat_blob(key)).meta == meta_of(want[key])

    async def _look_through(self, actor: Actor, snapshot, want: dict[bytes, int]) -> None:
        async with snapshot:
            await self._look(actor, snapshot, want)

    # -- another machine ----------------------------------------------------------------------

    def take_over(self) -> None:
        """A machine with nothing opens the bucket, and has all that was uploaded."""
        loop = SimLoop()

        async def look() -> None:
            local = await open_sim_store(SimDisk(0, image=new_image(PAGE)), loop)
            tier = await self._tier(local, self.bucket.client(), None)
            assert await self.shown_by(tier) == self.shown(self.bucket.state)
            await tier.aclose()

        self.power = Power(None)
        self.opened = []
        loop.run(look())
