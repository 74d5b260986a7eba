"""A tier and a plain ``RemoteBlobStore`` before one prefix: one of them is refused by name, and nothing is mixed."""

from __future__ import annotations

import contextlib
import random
from unittest import mock

import pytest

import seeds
from tiered.test_machines import PAGE, A, B, C, Machines, frame, machines, read  # noqa: F401 - a fixture
from uringblob import BlobGuid, BlobStoreError, WriterFenced
from uringblob.errors import TierDiverged
from uringblob.remote import AsyncRemoteBlobStore
from uringblob.remote.history import History
from uringblob.remote.keeper import Keeper
from uringblob.testing import SimDisk, SimLoop, new_image, open_sim_store
from uringblob.testing.sim.bucket import BucketFault, SimBucket
from uringblob.tiered import AsyncTieredBlobStore

pytestmark = pytest.mark.one_interpreter

GUIDS = (A, B, C)
OWN = BlobGuid(bytes([9]) * 16)  #: each change of the tier writes it, so that the local store is never empty
STEPS, WORLDS = 40, 6


def plain_store(machines, **options):  # noqa: F811
    return AsyncRemoteBlobStore.open(machines.bucket.client(), **options)


async def leave_waiting(machines, one, writes=(), deletes=()):  # noqa: F811
    """Commit while the bucket is out of reach, and end before it is back."""
    machines.cut_off = True
    await one.commit(writes, deletes)
    await one.aclose(flush=False)
    machines.cut_off = False


async def test_a_plain_writer_fences_an_open_tier(machines):  # noqa: F811
    async with await machines.open("one") as one:
        await one.commit([(A, frame(1))])
        await one.durable_remotely()
        async with plain_store(machines) as plain:
            await plain.commit([(A, frame(2))])
            await one.commit([(B, frame(3))])
            with pytest.raises(WriterFenced):
                await one.durable_remotely()
            assert not await plain.has_blob(B)
    with pytest.raises(TierDiverged, match="another writer has written"):
        await machines.open("one")
    async with await machines.open("one", discard_local=True) as one:
        assert [await read(one, guid) for guid in GUIDS] == [2, None, None]


async def test_a_tier_fences_an_open_plain_writer(machines):  # noqa: F811
    plain = await plain_store(machines, page_size=PAGE)
    await plain.commit([(A, frame(1))])
    async with await machines.open("one") as one:
        assert await read(one, A) == 1
        await one.commit([(A, frame(2))])
        await one.durable_remotely()
        with pytest.raises(WriterFenced):
            await plain.commit([(A, frame(3))])
        assert await read(one, A) == 2
    await plain.aclose(flush=False)


async def test_what_a_plain_writer_changed_is_there_after_a_clean_end(machines):  # noqa: F811
    async with await machines.open("one") as one:
        await one.commit([(A, frame(1)), (B, frame(2)), (C, frame(3))])
    async with plain_store(machines) as plain:
        await plain.commit([(A, frame(4))], [B])
    async with await machines.open("one") as one:
        assert [await read(one, guid) for guid in GUIDS] == [4, None, 3]
        assert one.tier_stats().fetched == 1, "C was there already"


async def test_the_first_tier_of_a_bucket_is_told_of_a_plain_writer(machines):  # noqa: F811
    """Nothing was uploaded yet, and no tier has written to the bucket."""
    one = await machines.open("one")
    await leave_waiting(machines, one, [(A, frame(1))])
    async with plain_store(machines) as plain:
        await plain.commit([(B, frame(2))])
    with pytest.raises(TierDiverged):
        await machines.open("one")


async def test_deletions_that_were_not_uploaded_are_a_history_too(machines):  # noqa: F811
    """Also where they leave the local store empty."""
    one = await machines.open("one")
    await one.commit([(A, frame(1))])
    await one.durable_remotely()
    await leave_waiting(machines, one, deletes=[A])
    async with plain_store(machines) as plain:
        await plain.commit([(B, frame(2))])
    with pytest.raises(TierDiverged):
        await machines.open("one")


async def test_a_plain_writer_that_only_looked_and_compacted_leaves_no_trace(machines):  # noqa: F811
    one = await machines.open("one")
    await one.commit([(A, frame(1))])
    await one.durable_remotely()
    await leave_waiting(machines, one, [(B, frame(2))])
    async with plain_store(machines) as plain:
        await plain.compact()
    async with await machines.open("one") as one:
        await one.durable_remotely()
    async with plain_store(machines, read_only=True) as reader:
        assert [await read(reader, guid) for guid in GUIDS] == [1, 2, None]


class World:
    """A tier and plain writers of one simulated bucket, and what each must see."""

    def __init__(self, seed: int) -> None:
        self.rng, self.bucket = random.Random(seed), SimBucket(seed)
        self.image = new_image(PAGE)
        self.remote: dict[bytes, int] = {}
        self.mine: dict[bytes, int] = {}  #: what the tier shows
        self.states: list[dict[bytes, int]] = []  #: what the bucket may have, as long as nobody else writes
        self.waiting = self.others_wrote = self.cut_off = False
        self.stamps = self.diverged = self.fenced = 0
        self.opened: list = []

    def faults(self, request):
        return BucketFault.REFUSED if self.cut_off and request.method != "get" else None

    def changes(self) -> dict[bytes, int | None]:
        self.stamps += 1
        guids = self.rng.sample((A, B, C), self.rng.randrange(1, 4))
        return {guid: self.rng.choice((self.stamps, self.stamps, None)) for guid in guids}

    async def live(self, loop: SimLoop) -> None:
        try:
            await self._live(loop)
        finally:
            for store in self.opened:
                with contextlib.suppress(BlobStoreError):
                    await store.aclose(flush=False)

    def keep(self, store):
        self.opened.append(store)
        return store

    async def _live(self, loop: SimLoop) -> None:
        for _ in range(STEPS // 4):
            disk = SimDisk(0, image=self.image)
            local = self.keep(await open_sim_store(disk, loop))
            await self._tier_life(local)
            self.image = disk.live
            for _ in range(self.rng.randrange(3)):
                await self._plain_life()

    async def _open(self, local, **options) -> AsyncTieredBlobStore:
        remote = self.keep(await AsyncRemoteBlobStore.open(self.bucket.client(self.faults), page_size=PAGE))
        return await self.keep(AsyncTieredBlobStore(local, remote, **options))

    async def _tier_life(self, local) -> None:
        self.cut_off = False
        try:
            tier = await self._open(local)
        except TierDiverged:
            assert self.others_wrote, "it was refused though nobody else wrote"
            assert self.waiting, "it was refused though all was uploaded"
            self.diverged += 1
            assert await shown(local) == self.mine | await shown(local), "the local store was changed"
            tier = await self._open(local, discard_local=True)
            self.mine, self.waiting = dict(self.remote), False
        else:
            assert not (self.others_wrote and self.waiting), "two histories are mixed"
            if self.others_wrote:
                self.mine = dict(self.remote)
        self.others_wrote = False
        assert await shown(tier) == self.mine, "it shows neither history"
        self.states = [dict(self.remote), self.mine]
        for _ in range(self.rng.randrange(1, 4)):
            await self._change(tier)
        if self.rng.random() < 0.5:
            await self._upload(tier)
        if self.rng.random() < 0.3:
            await self._plain_life(before=tier)
        self.cut_off = self.cut_off or self.rng.random() < 0.5
        closes_well = self.rng.random() < 0.7
        fenced = bool(tier.tier_stats().stopped) or self.others_wrote
        await tier.aclose(flush=closes_well)
        # An upload runs in the background: what the bucket has now says whether it was in time.
        remote = await self._bucket()
        if not self.others_wrote:
            assert remote in self.states, "the bucket is no state of the history"
            self.remote = remote
        self.waiting = fenced or not closes_well or remote != self.mine

    async def _change(self, tier) -> None:
        changes = {**self.changes(), OWN: self.stamps}
        await tier.commit(*as_commit(changes))
        self.mine = applied(self.mine, changes)
        self.states.append(self.mine)

    async def _upload(self, tier) -> None:
        await tier.durable_remotely()
        self.remote = dict(self.mine)

    async def _plain_life(self, before=None) -> None:
        if before is not None:  # what it has is there or not, before the other one begins
            await self._upload(before)
        cut_off, self.cut_off = self.cut_off, False
        async with AsyncRemoteBlobStore.open(self.bucket.client(), page_size=PAGE) as plain:
            assert await shown(plain) == self.remote
            for _ in range(self.rng.randrange(3)):
                changes = self.changes()
                now = applied(self.remote, changes)
                await plain.commit(*as_commit(changes))
                self.others_wrote = self.others_wrote or changes_anything(self.remote, changes)
                self.remote = now
            if self.rng.random() < 0.5:
                await plain.compact()
            if before is not None:
                with contextlib.suppress(WriterFenced):
                    await self._change(before)
                    await before.durable_remotely()
                    raise AssertionError("two writers at once")
                self.fenced += 1
        self.cut_off = cut_off

    async def _bucket(self) -> dict[bytes, int]:
        self.cut_off = False
        async with AsyncRemoteBlobStore.open(self.bucket.client(), read_only=True) as reader:
            return await shown(reader)


def as_commit(changes):
    writes = [(guid, frame(stamp)) for guid, stamp in changes.items() if stamp is not None]
    return writes, [guid for guid, stamp in changes.items() if stamp is None]


def changes_anything(state, changes) -> bool:
    return any(stamp is not None or guid in state for guid, stamp in changes.items())


def applied(state, changes) -> dict[bytes, int]:
    now = {**state, **changes}
    return {guid: stamp for guid, stamp in now.items() if stamp is not None}


async def shown(store) -> dict[bytes, int]:
    return {guid: stamp for guid in (*GUIDS, OWN) if (stamp := await read(store, guid)) is not None}


def live(seed: int) -> World:
    world, loop = World(seed), SimLoop()
    loop.run(world.live(loop))
    return world


def test_histories_of_a_tier_and_of_plain_writers_are_not_mixed():
    first = seeds.first()
    worlds = [live(first + number) for number in range(WORLDS)]
    assert sum(world.diverged for world in worlds)
    assert sum(world.fenced for world in worlds)


def groups_without_a_name():
    """The bucket does not say who wrote last: a tie that plain writers do not know stands in for that."""
    return mock.patch.object(AsyncRemoteBlobStore, "_signatures", return_value=None)


def who_opened_has_written():
    def apply(self, header, *others):
        dead = honest(self, header, *others)
        self.last_writer = header.session
        return dead

    honest = History.apply
    return mock.patch.object(History, "apply", apply)


def a_map_of_who_wrote_it():
    async def compact(self):
        self._history.last_writer = self._writer.session
        await honest(self)

    honest = Keeper.compact
    return mock.patch.object(Keeper, "compact", compact)


@pytest.mark.parametrize(
    "bug",
    [groups_without_a_name, who_opened_has_written, a_map_of_who_wrote_it],
    ids=lambda bug: bug.__name__,
)
def test_a_planted_bug_is_found(bug):
    with bug(), pytest.raises((AssertionError, TierDiverged)):
        for seed in range(40):
            live(seed)
