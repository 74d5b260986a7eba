"""Row 12's cases: every public coroutine, cancelled after any number of loop rounds, and what must hold then.

On the simulated loop one seed is one schedule: the same call takes the same steps each time, so
"at every await" is a loop over the rounds that pass before the cancellation, until the call ends
by itself.  Each schedule is met in three manners: alone, in the company of other tasks and a
compaction (groups are shared, slots wait for their readers), and by a caller who cancels again
and again until the call is over.

When a call is over its buffers are the caller's.  So they are overwritten and given back at once:
a disk that still read or wrote them would be seen, by the engine or in the contents.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

from behaviour.quiet import PATIENCE
from sim.rig import PAGE, forget, frame, guid, read_all, small_log, used_image
from uringblob import AsyncMemoryBlobStore, StoreClosed, tuning
from uringblob.store.index.slot_states import SlotState
from uringblob.store.log.compaction import CompactionStopped
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

OLD = {guid(n): frame(100 + n) for n in range(4)}
NEW = {guid(n): frame(200 + n) for n in (1, 2, 9)}
#: What others change meanwhile.
OTHERS = {guid(n): frame(300 + n) for n in range(30, 36)}

MANNERS = ("alone", "in company", "insisting")
#: Rounds after which every call has ended by itself.
ROUNDS_MAX = 1000
_PATTERN = b"\xa5" * PAGE


class Case(NamedTuple):
    """How a method is called with the caller's buffers, and what it may change."""

    call: Callable[[Any, Buffers], Awaitable[object]]
    changes: Mapping[bytes, bytes | None] = MappingProxyType({})


class Buffers:
    """A caller's frames: ``rooms`` to read into, ``source(guid)`` holding what is to be written."""

    def __init__(self, store, *, leased: bool) -> None:
        def made():
            return store.alloc_blob_buf_uninit() if leased else bytearray(PAGE)

        self.leased = leased
        self.rooms = [made() for _ in range(4)]
        self._sources = {name: made() for name in NEW}
        for name, buffer in self._sources.items():
            memoryview(_view(buffer))[:] = NEW[name]

    def source(self, name: bytes):
        return self._sources[name]

    def writes(self):
        return list(self._sources.items())

    async def end(self) -> None:
        """The call is over: all of it is used for something else, watched, and given back."""
        buffers = [*self.rooms, *self._sources.values()]
        for buffer in buffers:
            memoryview(_view(buffer))[:] = _PATTERN
        for _ in range(20):
            await asyncio.sleep(0)
        for buffer in buffers:
            assert bytes(_view(buffer)) == _PATTERN, "a call that was over wrote into its caller's buffer"
            if self.leased:
                buffer.release()


def _view(buffer):
    return buffer if isinstance(buffer, bytearray) else buffer.view


async def _write_and_flush(store, buffers) -> None:
    await store.write_blob(guid(1), buffers.source(guid(1)))
    await store.flush()


async def _look_back(store, buffers) -> None:
    async with await store.snapshot() as snapshot:
        await snapshot.read_blob(guid(1), buffers.rooms[0])
        assert await snapshot.list_blobs()
        await snapshot.read_blobs([(guid(n), buffers.rooms[n]) for n in range(1, 3)])


async def _thin_out_and_vacuum(store, _buffers) -> None:
    await store.delete_blob(guid(2))
    assert (await store.vacuum()).done


_ONE = {guid(1): NEW[guid(1)]}

CASES = {
    "read_blob": Case(lambda s, b: s.read_blob(guid(1), b.rooms[0])),
    "read_blob_range": Case(lambda s, b: s.read_blob_range(guid(1), 0, b.rooms[0])),
    "read_blobs": Case(lambda s, b: s.read_blobs([(guid(n), b.rooms[n]) for n in range(3)])),
    "has_blob": Case(lambda s, b: s.has_blob(guid(1))),
    "has_blobs": Case(lambda s, b: s.has_blobs([guid(1)])),
    "checksum": Case(lambda s, b: s.checksum(guid(1))),
    "stat_blob": Case(lambda s, b: s.stat_blob(guid(1))),
    "list_blobs": Case(lambda s, b: s.list_blobs()),
    "verify": Case(lambda s, b: s.verify()),
    "backup": Case(lambda s, b: s.backup(AsyncMemoryBlobStore(PAGE))),
    "write_blob": Case(lambda s, b: s.write_blob(guid(1), b.source(guid(1))), _ONE),
    "write_blobs": Case(lambda s, b: s.write_blobs(b.writes()), NEW),
    "write_blobs_with_data_sync": Case(lambda s, b: s.write_blobs_with_data_sync(b.writes()), NEW),
    "delete_blob": Case(lambda s, b: s.delete_blob(guid(2)), {guid(2): None}),
    "commit": Case(lambda s, b: s.commit(b.writes(), [guid(3)]), {**NEW, guid(3): None}),
    "commit, on condition": Case(
        lambda s, b: s.commit(b.writes(), [guid(3)], if_absent=[guid(9), guid(60)]), {**NEW, guid(3): None}
    ),
    "set_max_bytes": Case(lambda s, b: s.set_max_bytes(1 << 40)),
    "flush": Case(_write_and_flush, _ONE),
    "snapshot": Case(_look_back),
    "vacuum": Case(_thin_out_and_vacuum, {guid(2): None}),
    "aclose": Case(lambda s, b: s.aclose()),
}


class Outcome(NamedTuple):
    """Whether the call ended before it was cancelled, and whether it returned in spite of it."""

    by_itself: bool
    returned: bool


async def cancelled_after(rounds: int, case: Case, store, *, leased=False, insisting=False) -> Outcome:
    """Cancel the call after as many loop rounds; when it is over, use its buffers at once."""
    buffers = Buffers(store, leased=leased)
    task = asyncio.ensure_future(case.call(store, buffers))
    for _ in range(rounds):
        await asyncio.sleep(0)
    by_itself = not task.cancel()
    while insisting and not task.done():
        task.cancel()
        await asyncio.sleep(0)
    returned = True
    try:
        await task
    except asyncio.CancelledError:
        returned = False
    await buffers.end()
    return Outcome(by_itself, returned)


def judge(found, changes, outcome: Outcome, rounds: int) -> None:
    """All of the change or nothing of it; all if it returned, nothing if it never began."""
    there = set()
    for name in {*OLD, *changes}:
        old, new = OLD.get(name), changes.get(name, OLD.get(name))
        assert found.get(name) in (old, new), f"{name.hex()} is neither the old frame nor the new one"
        if old != new:
            there.add(found.get(name) == new)
    assert len(there) <= 1, "half of the change is there"
    assert not outcome.returned or False not in there, "it returned, and is not there"
    assert rounds or True not in there, "it was cancelled before its first step, and is there"


def nothing_is_lost(of) -> None:
    """No request, lease or slot is left in use."""
    assert of.file_io.engine.in_flight == 0
    assert of.file_io.engine.pool.leased == 0
    slots = of.index.slots
    assert slots.count(SlotState.WRITING) == 0
    assert slots.count(SlotState.BAD) == 0
    assert sum(slots.count(state) for state in SlotState) == slots.limit - slots.first
    assert not slots._pins
    assert not slots._holds
    assert not of.index.moments.open


def every_slot_has_its_blob(of) -> None:
    """After a flush: as many live slots as blobs, and no change is pending."""
    slots = of.index.slots
    assert slots.count(SlotState.LIVE) == len(of.index)
    assert slots.count(SlotState.PENDING) == 0


async def settled(store) -> None:
    """Wait until what the call left to the store itself has ended."""
    end = time.monotonic() + PATIENCE
    while store._active or store._core.file_io.engine.in_flight or not store._core.queue.idle:
        assert time.monotonic() < end, f"never at rest: {store._active} calls, {store!r}"
        await asyncio.sleep(0)


# --- one schedule on the simulated disk --------------------------------------------------------


def sweep(name: str, manner: str, seed: int) -> int:
    """Cancel at every await of one schedule; returns how many there are."""
    for rounds in range(ROUNDS_MAX):
        try:
            by_itself = life(name, manner, seed, rounds)
        except Exception as error:
            call = f'life("{name}", "{manner}", {seed}, {rounds})'
            replay = f"replay: PYTHONPATH=tests python -c 'from cancel.cases import life; {call}'"
            raise AssertionError(f"{error!r}\n{replay}") from error
        if by_itself:
            return rounds
    raise AssertionError(f"{name} never ended by itself")


def life(name: str, manner: str, seed: int, rounds: int) -> bool:
    """Open, cancel the call after ``rounds``, go on, close, reopen; true if it had ended by itself."""
    loop, disk = SimLoop(), SimDisk(seed, image=used_image(24))
    stores: list[Any] = []
    try:
        with small_log(seed=seed, large_group=2 * PAGE if seed % 3 == 2 else None), _overlap(seed % 3 == 1):
            outcome = loop.run(_life(loop, disk, stores, name, manner, seed, rounds))
    finally:
        for store in stores:
            forget(store)
    assert not loop.complaints, loop.complaints
    return outcome.by_itself


@contextlib.contextmanager
def _overlap(always: bool):
    """Write and checksum at the same time, as only large batches do."""
    if not always:
        yield
        return
    with (
        mock.patch.object(tuning, "WRITE_OVERLAP_BYTES_MIN", 0),
        mock.patch.object(tuning, "COMMIT_OVERLAP_BYTES_MIN", 0),
    ):
        yield


async def _life(loop, disk, stores, name, manner, seed, rounds) -> Outcome:
    case = CASES[name]
    store = await open_sim_store(disk, loop, rng=random.Random(seed))
    stores.append(store)
    await store.commit(OLD.items())
    company = _company(store) if manner == "in company" else []
    outcome = await cancelled_after(
        rounds, case, store, leased=seed % 2 == 0, insisting=manner == "insisting"
    )
    others = await _acknowledged(company, may_refuse=name == "aclose")
    if name == "aclose":
        await store.aclose()  # waits for the one that was cancelled
        before = {**OLD, **others}
    else:
        await settled(store)
        nothing_is_lost(store._core)
        found = await read_all(store)
        judge(found, case.changes, outcome, rounds)
        await store.commit([(guid(50), frame(50))])
        await store.flush()
        assert not store.needs_flush()
        every_slot_has_its_blob(store._core)
        before = {**found, **others, guid(50): frame(50)}
        await store.aclose()
    assert store._core.file_io.engine.in_flight == 0
    again = await open_sim_store(disk, loop)
    stores.append(again)
    after = await read_all(again)
    assert after == before, "what was there is not there after reopening"
    assert (await again.verify()).ok
    await again.aclose()
    return outcome


def _company(store) -> list[tuple[dict[bytes, bytes], asyncio.Future]]:
    """Other tasks that write, commit, read and compact during the call, and what they write."""

    async def compact() -> None:
        store._check_open()
        with contextlib.suppress(CompactionStopped):
            await store._core.maintenance.start_compaction()

    async def read() -> None:
        for _ in range(4):
            await store.read_blob(guid(0), bytearray(PAGE))

    pairs = list(OTHERS.items())
    calls = [
        (pairs[:1], store.write_blob(*pairs[0])),
        (pairs[1:4], store.commit(pairs[1:4])),
        (pairs[4:], store.commit(pairs[4:])),
        ((), read()),
        ((), compact()),
    ]
    return [(dict(changes), asyncio.ensure_future(call)) for changes, call in calls]


async def _acknowledged(company, *, may_refuse: bool) -> dict[bytes, bytes]:
    """Wait for the others, which are not affected; a store that is being closed may refuse them."""
    there = {}
    for changes, call in company:
        try:
            await call
            there.update(changes)
        except StoreClosed:
            assert may_refuse
    return there
