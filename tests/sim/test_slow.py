"""A disk that takes 1 s, and one that hangs 30 s, per request, on simulated time (row 17 of the faults)."""

from __future__ import annotations

import asyncio

import pytest

import seeds
from sim.lives import PAGE, frame, guid, lend, lent, small_log, used_image
from sim.slow import slow_life
from uringblob.testing import Fault, SimDisk, SimLoop
from uringblob.testing.sim.store import open_sim_store

pytestmark = pytest.mark.one_interpreter

HANG_S = 30.0
A, B, C = guid(1), guid(2), guid(3)


@pytest.mark.parametrize("delay_s", [1.0, HANG_S])
def test_lives_on_a_slow_disk(delay_s, count_row):
    """Requests of every kind, here and there or all of them: frames and slots in flight stay their own."""
    sums: dict[str, int] = {}
    for number in range(40):
        for name, count in slow_life(seeds.first() + number, delay_s).items():
            sums[name] = sums.get(name, 0) + count
    assert sums["slow requests"] > 400
    count_row(17, **sums)


class Scene:
    """A store with A and B, on which the next request of one kind hangs."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.disk = SimDisk(image=used_image(24), faults=self._fault)
        self._kind = ""

    def _fault(self, _index: int, kind: str) -> Fault | None:
        if kind != self._kind:
            return None
        self._kind = ""
        return Fault(delay_s=HANG_S)

    def hang_next(self, kind: str) -> None:
        self._kind = kind

    def play(self, scenario) -> None:
        async def run():
            self.store = await open_sim_store(self.disk, self.loop)
            await self.store.commit(lent({A: frame(1), B: frame(2)}))
            await scenario(self)
            await self.store.aclose()

        with small_log():
            self.loop.run(run())
        assert not self.loop.complaints


async def read(store, name) -> bytes:
    room = bytearray(PAGE)
    await store.read_blob(name, room)
    return bytes(room)


def test_a_hanging_read_keeps_its_slot_and_nobody_else_waits():
    async def scenario(scene):
        store = scene.store
        scene.hang_next("read")
        hanging = asyncio.ensure_future(read(store, A))
        await asyncio.sleep(0)
        slot = store._core.index.find(A) >> 64
        for stamp in range(10, 40):
            # Its frame is replaced, and replaced again: its slot would be free twenty times over.
            await store.commit(lent({A: frame(stamp)}))
            assert store._core.index.find(A) >> 64 != slot
        assert await read(store, B) == frame(2)
        assert scene.loop.time() == 0
        assert not hanging.done()
        assert await hanging == frame(1)
        assert scene.loop.time() == HANG_S

    Scene().play(scenario)


def test_a_hanging_write_holds_up_its_own_commit_and_the_next_and_no_reader():
    async def scenario(scene):
        store = scene.store
        scene.hang_next("write")
        hanging = asyncio.ensure_future(store.commit(lent({A: frame(3)})))
        await asyncio.sleep(0)
        behind = asyncio.ensure_future(store.commit(lent({B: frame(4)})))
        await store.write_blob(C, lend(frame(5)))
        assert await read(store, C) == frame(5)
        assert await read(store, A) == frame(1)
        assert scene.loop.time() == 0
        assert not hanging.done()
        assert not behind.done()
        await asyncio.gather(hanging, behind)
        assert scene.loop.time() == HANG_S
        assert [await read(store, name) for name in (A, B, C)] == [frame(3), frame(4), frame(5)]

    Scene().play(scenario)


def test_a_cancelled_caller_waits_for_the_hanging_write():
    """The buffer is the caller's again only when the disk has let go of it."""

    async def scenario(scene):
        scene.hang_next("write")
        hanging = asyncio.ensure_future(scene.store.write_blob(A, lend(frame(6))))
        await asyncio.sleep(0)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert scene.loop.time() == HANG_S

    Scene().play(scenario)


def test_a_hanging_flush_acknowledges_nothing():
    async def scenario(scene):
        store = scene.store
        scene.hang_next("sync")
        hanging = asyncio.ensure_future(store.commit(lent({A: frame(7)})))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not hanging.done()
        assert await read(store, A) == frame(1)
        await hanging
        assert scene.loop.time() == HANG_S
        assert await read(store, A) == frame(7)

    Scene().play(scenario)


def test_closing_waits_for_what_hangs():
    async def scenario(scene):
        scene.hang_next("read")
        hanging = asyncio.ensure_future(read(scene.store, A))
        await asyncio.sleep(0)
        await scene.store.aclose()
        assert scene.loop.time() == HANG_S
        assert await hanging == frame(1)

    Scene().play(scenario)
