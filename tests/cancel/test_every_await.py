"""Row 12: every public coroutine, cancelled at every step, before submission, in flight, after completion.

On the simulated loop a call takes the same steps each time, so "at every await" is a loop over the
number of rounds that pass before the cancellation; on the real engines the same loop meets the
same awaits at moments of the disk's choosing.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import random

import pytest

from sim.rig import PAGE, forget, frame, guid, read_all, small_log, used_image
from uringblob import AsyncFileBlobStore
from uringblob.store.slots import SlotState
from uringblob.testing.sim_disk import SimDisk
from uringblob.testing.sim_loop import SimLoop
from uringblob.testing.sim_store import open_sim_store

pytestmark = pytest.mark.one_interpreter

OLD = {guid(n): frame(100 + n) for n in range(4)}
NEW = {guid(n): frame(200 + n) for n in (1, 2, 9)}

#: Each coroutine method: how it is called with buffers of the caller's, and what it may change.
CALLS = {
    "read_blob": (lambda s, rooms: s.read_blob(guid(1), rooms[0]), {}),
    "read_blob_range": (lambda s, rooms: s.read_blob_range(guid(1), 0, rooms[0]), {}),
    "read_blobs": (lambda s, rooms: s.read_blobs([(guid(n), rooms[n]) for n in range(3)]), {}),
    "has_blob": (lambda s, _: s.has_blob(guid(1)), {}),
    "checksum": (lambda s, _: s.checksum(guid(1)), {}),
    "list_blobs": (lambda s, _: s.list_blobs(), {}),
    "verify": (lambda s, _: s.verify(), {}),
    "write_blob": (lambda s, _: s.write_blob(guid(1), NEW[guid(1)]), {guid(1): NEW[guid(1)]}),
    "write_blobs": (lambda s, _: s.write_blobs(NEW.items()), NEW),
    "write_blobs_with_data_sync": (lambda s, _: s.write_blobs_with_data_sync(NEW.items()), NEW),
    "delete_blob": (lambda s, _: s.delete_blob(guid(2)), {guid(2): None}),
    "commit": (lambda s, _: s.commit(NEW.items(), [guid(3)]), {**NEW, guid(3): None}),
    "flush": (lambda s, _: _flush_something(s), {guid(1): NEW[guid(1)]}),
    "aclose": (lambda s, _: s.aclose(), {}),
}
ATOMIC = {"write_blob", "delete_blob", "commit"}
#: Rounds after which every call has ended by itself.
ROUNDS_MAX = 400


async def _flush_something(store):
    await store.write_blob(guid(1), NEW[guid(1)])
    await store.flush()


def test_every_coroutine_method_has_its_row():
    methods = {
        name
        for name, value in inspect.getmembers(AsyncFileBlobStore, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert methods == set(CALLS)


async def cancelled_after(rounds, call, store):
    """Cancel ``call`` after as many loop rounds; true if it had not ended by itself."""
    rooms = [bytearray(b"\xee" * PAGE) for _ in range(4)]
    task = asyncio.ensure_future(call(store, rooms))
    for _ in range(rounds):
        await asyncio.sleep(0)
    cancelled = task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    # From here on the buffers are the caller's: what the kernel still did to them would show.
    before = [bytes(room) for room in rooms]
    for _ in range(20):
        await asyncio.sleep(0)
    assert [bytes(room) for room in rooms] == before, "a cancelled call still writes into a buffer"
    return cancelled


def judge(found, changes, *, atomic, done):
    """Old or new, whole; all or nothing where the call is atomic."""
    states = set()
    for name in {*OLD, *changes}:
        old, new = OLD.get(name), changes.get(name, OLD.get(name))
        assert found.get(name) in (old, new), f"{name.hex()} is neither the old frame nor the new one"
        if old != new:
            states.add(found.get(name) == new)
    assert not atomic or len(states) <= 1, "half of the change is there"
    assert not done or False not in states, "it ended by itself, and is not there"


def nothing_is_lost(core):
    """No request, lease or slot is left in anybody's hands."""
    assert core.medium.engine.in_flight == 0
    assert core.medium.engine.pool.leased == 0
    slots = core.manifest.slots
    assert slots.count(SlotState.WRITING) == 0
    assert slots.count(SlotState.BAD) == 0
    assert sum(slots.count(state) for state in SlotState) == slots.limit - slots.first
    assert not slots._holds


async def settled(store):
    """Wait until what the call left to the store itself has ended."""
    while store._active or store._core.medium.engine.in_flight or not store._core.queue.idle:
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", CALLS)
def test_on_the_simulated_disk(name, count_row):
    call, changes = CALLS[name]
    awaits = 0
    for rounds in range(ROUNDS_MAX):
        try:
            with small_log(seed=rounds):
                cancelled = _one(name, call, changes, rounds)
        except Exception as error:
            raise AssertionError(f"{error!r}\nreplay: {name} cancelled after {rounds} rounds") from error
        if not cancelled:
            break
        awaits += 1
    else:
        pytest.fail(f"{name} never ended by itself")
    count_row(12, **{"awaits cancelled": awaits})


def _one(name, call, changes, rounds) -> bool:
    loop, disk = SimLoop(), SimDisk(rounds, image=used_image(12))
    stores = []

    async def run():
        store = await open_sim_store(disk, loop, rng=random.Random(rounds))
        stores.append(store)
        await store.commit(OLD.items())
        cancelled = await cancelled_after(rounds, call, store)
        if name != "aclose":
            await settled(store)
            nothing_is_lost(store._core)
            judge(await read_all(store), changes, atomic=name in ATOMIC, done=not cancelled)
            await store.commit([(guid(50), frame(50))])
            await store.flush()
            before = await read_all(store)
        else:
            before = dict(OLD)
        await store.aclose()
        assert store._core.medium.engine.in_flight == 0
        again = await open_sim_store(disk, loop)
        stores.append(again)
        assert await read_all(again) == before, "what was there is not there after reopening"
        assert (await again.verify()).ok
        await again.aclose()
        return cancelled

    try:
        cancelled = loop.run(run())
    finally:
        for store in stores:
            forget(store)
    assert not loop.complaints, loop.complaints
    return cancelled


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"aclose"}))
async def test_on_the_real_engines(name, engine, store_path, count_row):
    call, changes = CALLS[name]
    awaits = 0
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.commit(OLD.items())
        for rounds in itertools.chain(range(12), (20, 50, 100)):
            awaits += await cancelled_after(rounds, call, store)
            await settled(store)
            nothing_is_lost(store._core)
            judge(await read_all(store), changes, atomic=name in ATOMIC, done=False)
            await store.commit(OLD.items(), [guid(9)])
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert await read_all(store) == OLD
        assert (await store.verify()).ok
    count_row(12, **{"awaits cancelled on real engines": awaits})
