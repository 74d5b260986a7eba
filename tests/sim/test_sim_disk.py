"""The simulated disk itself: what a flush covers, what a power cut may leave, and one seed, one course."""

from __future__ import annotations

import asyncio
import errno
import random

import pytest

from sim.rig import lives
from uringblob.buffers.leases import frame_of
from uringblob.testing import Fault, History, HistoryError, Image, SimDisk, SimLoop, SimStuck, new_image
from uringblob.testing.sim.engine import SimEngine

pytestmark = pytest.mark.one_interpreter

PAGE = 4096
X, Y = b"x" * PAGE, b"y" * PAGE


def disk_with_writes(*done: bool) -> SimDisk:
    disk = SimDisk(image=Image(size=16 * PAGE))
    for index, finished in enumerate(done):
        write = disk.begin_write(index * PAGE, X)
        if finished:
            disk.finish_write(write, PAGE)
    return disk


def landed(image: Image, count: int) -> tuple[bool, ...]:
    return tuple(image.read(index * PAGE, PAGE) == X for index in range(count))


def test_a_flush_covers_what_was_complete_when_it_began():
    disk = disk_with_writes(True, False)
    covered = disk.begin_sync(failing=False)
    disk.finish_write(disk.unflushed[1], PAGE)
    late = disk.begin_write(2 * PAGE, X)
    disk.finish_write(late, PAGE)
    disk.finish_sync(covered)
    assert landed(disk.durable, 3) == (True, False, False)
    assert landed(disk.live, 3) == (True, True, True)


def test_every_subset_of_unflushed_writes():
    images = {landed(image, 3) for image in disk_with_writes(True, False, True).all_crashes()}
    assert len(images) == 8


def test_a_random_crash_reaches_every_subset_and_tears_at_sectors():
    disk = disk_with_writes(True, True, False)
    rng = random.Random(1)
    images = [disk.crash(rng) for _ in range(500)]
    assert len({landed(image, 3) for image in images}) == 8
    torn = {image.read(0, PAGE).count(b"x") for image in images}
    assert torn == set(range(0, PAGE + 1, 512))


def test_growth_that_did_not_land_loses_what_lies_behind_it():
    disk = SimDisk(image=Image(size=PAGE))
    assert disk.grow(4 * PAGE) == 0
    disk.finish_write(disk.begin_write(2 * PAGE, X), PAGE)
    shapes = {(image.size // PAGE, image.read(2 * PAGE, PAGE) == X) for image in disk.all_crashes()}
    assert shapes == {(1, False), (4, False), (4, True)}


def test_a_failed_flush_loses_data_for_good():
    lost = 0
    for seed in range(20):
        disk = SimDisk(seed, image=Image(size=PAGE))
        disk.finish_write(disk.begin_write(0, X), PAGE)
        disk.finish_sync(disk.begin_sync(failing=True))
        disk.finish_sync(disk.begin_sync(failing=False))
        assert disk.live.read(0, PAGE) == X
        lost += disk.durable.read(0, PAGE) != X
    assert 0 < lost < 20


def test_two_writes_in_flight_to_one_place_are_a_bug():
    disk = disk_with_writes(False)
    with pytest.raises(AssertionError, match="in flight to one place"):
        disk.begin_write(0, Y)


def test_capacity_and_faults():
    disk = SimDisk(
        image=Image(size=PAGE), capacity=2 * PAGE, faults=lambda n, _: Fault(5) if n == 1 else None
    )
    assert disk.grow(2 * PAGE) == 0
    assert disk.grow(3 * PAGE) == -errno.ENOSPC
    assert disk.next_fault("read") is None
    assert disk.next_fault("sync") == Fault(5)


def test_a_deadlock_is_said_so():
    loop = SimLoop()

    async def wait_for_nothing():
        await loop.create_future()

    with pytest.raises(SimStuck):
        loop.run(wait_for_nothing())


def test_a_loop_runs_while_it_runs_and_a_cancelled_call_is_not_made():
    loop = SimLoop()
    made = []

    async def work():
        loop.call_soon(made.append, "cancelled").cancel()
        loop.call_later(1, made.append, "cancelled too").cancel()
        loop.call_soon(made.append, "made")
        await asyncio.sleep(2)
        return loop.is_running()

    assert loop.run(work())
    assert made == ["made"]
    assert not loop.is_running()
    assert not loop.is_closed()


def test_a_write_behind_the_end_makes_the_file_longer_and_a_crash_may_take_that_back():
    disk = SimDisk(image=Image(size=PAGE))
    disk.finish_write(disk.begin_write(2 * PAGE, X), PAGE)
    assert disk.live.size == 3 * PAGE
    assert disk.live.read(PAGE, 2 * PAGE) == bytes(PAGE) + X
    shapes = {(image.size // PAGE, image.read(2 * PAGE, PAGE) == X) for image in disk.all_crashes()}
    assert shapes == {(1, False), (3, False), (3, True)}


def test_a_file_that_is_long_enough_does_not_grow():
    disk = SimDisk(image=Image(size=4 * PAGE))
    assert disk.grow(2 * PAGE) == 0
    assert disk.live.size == 4 * PAGE
    assert not disk.unflushed


def test_an_engine_says_how_it_stands_and_ends_once():
    loop = SimLoop()
    disk = SimDisk(7, image=new_image(), faults=lambda n, kind: Fault(delay_s=60) if kind == "sync" else None)
    engine = SimEngine(disk, loop, PAGE)

    async def work():
        syncing = engine.sync()
        assert repr(engine) == f"<SimEngine in_flight=1 on {disk!r}>"
        assert repr(disk) == f"<SimDisk seed=7 {disk.live.size} bytes, 0 un-flushed writes>"
        assert repr(disk.live) == f"<Image {disk.live.size} bytes, {len(disk.live.blocks)} blocks not blank>"
        assert repr(loop).endswith("timers=1 devices=1>")
        await engine.close()
        assert syncing.result() == 0, "closing waits for what hangs"
        assert loop.time() == 60
        engine.abandon()
        assert repr(loop).endswith("devices=0>")

    loop.run(work())


@pytest.mark.parametrize("fault", [Fault(lost=True), Fault(to=4 * PAGE)], ids=["lost", "misdirected"])
def test_a_write_that_lies_says_that_it_is_complete(fault):
    loop = SimLoop()
    disk = SimDisk(image=Image(size=8 * PAGE), faults=lambda n, kind: fault if kind == "write" else None)
    engine = SimEngine(disk, loop, PAGE)

    async def work():
        return await engine.write(PAGE, [frame_of(X, PAGE, writable=False, pool=None)])

    assert loop.run(work()) == PAGE
    assert disk.live.read(PAGE, PAGE) == bytes(PAGE)
    assert disk.live.read(4 * PAGE, PAGE) == (bytes(PAGE) if fault.lost else X)
    assert len(disk.unflushed) == (not fault.lost)


def test_there_is_no_other_thread_to_read_in():
    engine = SimEngine(SimDisk(image=Image(size=PAGE)), SimLoop(), PAGE)
    assert engine.read_now(0, frame_of(bytearray(PAGE), PAGE, writable=True, pool=None)) == 0


def test_a_read_that_is_older_than_it_may_be_is_said_so():
    history = History()
    for content in (b"1", b"2"):
        history.end(history.begin("write", {A: content}), durable=False)
    history.seen(A, b"2", began=history.now)
    for stale in (b"1", b"3", None):
        with pytest.raises(HistoryError, match="stale, or never written"):
            history.seen(A, stale, began=history.now)
    history.seen(B, None, began=history.now)


def test_the_clock_jumps():
    loop = SimLoop()

    async def sleep():
        await asyncio.sleep(3600)
        return loop.time()

    assert loop.run(sleep()) == 3600


def course(seed: int) -> list:
    """Everything that one seed's lives asked of the disk, and what power cuts left of it."""
    seen = []
    for life in lives(seed, 2):
        life.run()
        seen += [
            life.disk.requests,
            len(life.moments),
            *(sorted(m.image.blocks.items()) for m in life.moments),
        ]
    return seen


def test_one_seed_one_course():
    assert course(3) == course(3)
    assert course(3) != course(4)


A, B = b"a" * 16, b"b" * 16


def judged(history: History, found: dict) -> str:
    try:
        History.judge(history.knowledge(), found)
    except HistoryError as error:
        return str(error)
    return ""


def test_the_judge():
    history = History()
    first = history.begin("commit", {A: b"1", B: b"1"}, atomic=True)
    assert not judged(history, {})
    assert not judged(history, {A: b"1", B: b"1"})
    assert "half of" in judged(history, {A: b"1"})
    assert "never written" in judged(history, {b"c" * 16: b"1"})
    assert "never written" in judged(history, {A: b"2"})
    history.end(first, durable=True)
    assert "no blob" in judged(history, {A: b"1"})
    put = history.begin("put", {A: b"2"})
    history.end(put)
    assert not judged(history, {A: b"1", B: b"1"})
    assert not judged(history, {A: b"2", B: b"1"})
    history.flushed(history.now + 1)
    assert "durable were" in judged(history, {A: b"1", B: b"1"})
    refused = history.begin("put", {A: b"3"})
    history.end(refused, refused=True)
    assert "durable were" in judged(history, {A: b"3", B: b"1"})


def test_a_disk_that_lies():
    disk = SimDisk(image=Image(size=4 * PAGE))
    disk.finish_write(disk.begin_write(0, X), PAGE)
    disk.lose_write(disk.begin_write(0, Y))
    assert disk.read(0, PAGE) == X
    disk.finish_write(disk.begin_write(0, Y), PAGE)
    assert disk.read_stale(0, PAGE) == X
    disk.misdirect_write(disk.begin_write(PAGE, X), 2 * PAGE)
    assert disk.read(0, 3 * PAGE) == Y + bytes(PAGE) + X
