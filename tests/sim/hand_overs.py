"""Every order of completions of a few small commits, with each way in which their groups are handed over.

A *case* is a handful of calls that are begun together, at most one request that goes wrong, and at most one event
(a close, a cancelled caller, a store that is dropped, another call that joins) before the n-th completion.  The
orders in which its requests may complete are walked as a tree: a run follows what it is told, then takes the
first choice each time, and says what else there was.  At each step every crash image is judged; a state of the
disk that another order has led to is judged once.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import functools
import gc
import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

from sim.exhaustive import used_store
from sim.flat import census, stuttering
from sim.judging import Judge
from sim.lives import PAGE, Moment, forget, frame, guid, lend, lend_afresh, read_all, small_log
from uringblob.errors import BlobStoreError, BlobStoreIOError, StoreClosed, StorePoisoned
from uringblob.store.index.slot_states import SlotState
from uringblob.testing.sim import store as sim_store
from uringblob.testing.sim.disk import Fault, SimDisk
from uringblob.testing.sim.engine import SimEngine
from uringblob.testing.sim.history import History
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop

_PATTERN = b"\xa5" * PAGE
A, B, C, D, E = (guid(n) for n in range(5))

#: What each call changes: a stamp for each guid, ``None`` to delete it.
CHANGES = {
    "one": {A: 1},
    "two": {B: 2, C: 3},
    "another": {A: 4, D: None},
    "large": {A: 5, C: 6, D: 7},
    "synced": {E: 8},
    "put": {C: 9},
}
FAULTS = {
    "short": Fault(moved=lambda size: size - 512),
    "no room": Fault(errno.ENOSPC),
    "failed": Fault(errno.EIO),
}


class Case(NamedTuple):
    """``fault``: which request goes wrong, and how; ``event``: what happens before which completion."""

    calls: tuple[str, ...]
    fault: tuple[str, int, str] | None = None
    event: tuple[str, int] | None = None
    groups: int = 0
    segment_blocks: int = 16
    twice: bool = False


@functools.cache
def image_of(groups: int, segment_blocks: int) -> Image:
    """Return a used store whose log ends after so many groups more."""
    with small_log(segment_bytes=segment_blocks * PAGE, seed=1):
        return used_store(groups)


class Script:
    """Chooses as it is ``told``, then the first each time; ``made`` has each choice, and of how many."""

    def __init__(self, told: tuple[int, ...]) -> None:
        self.told = told
        self.made: list[tuple[int, int]] = []
        self.armed = False

    def choose(self, of: int) -> int:
        if not self.armed or of == 1:
            return 0
        number = len(self.made)
        choice = self.told[number] if number < len(self.told) else 0
        self.made.append((choice, of))
        return choice

    def next(self) -> tuple[int, ...] | None:
        """Return what to tell the next run, or ``None`` after the last one."""
        made = self.made
        while made:
            choice, of = made.pop()
            if choice + 1 < of:
                return (*(choice for choice, _ in made), choice + 1)
        return None


class ScriptedEngine(SimEngine):
    """Completes one request whenever nothing else can happen, as its script chooses, or two at once."""

    before_completion = staticmethod(lambda: False)
    pairs = False

    def _poll(self, idle: bool) -> bool:
        if not idle or not self._waiting:
            return False
        if self.before_completion():
            return True
        script = self._rng
        self._waiting.pop(script.choose(len(self._waiting)))()
        if self.pairs and self._waiting and script.choose(2):
            self._waiting.pop(script.choose(len(self._waiting)))()
        return True


class Dropped(Exception):
    """The store and its loop are dropped as they are."""


class Run:
    """One run of ``case``, with completions in the order of ``script``."""

    def __init__(self, explorer: Explorer, case: Case, script: Script) -> None:
        lend_afresh()
        self.explorer = explorer
        self.case = case
        self.script = script
        self.loop = SimLoop()
        image = image_of(case.groups, case.segment_blocks).copy()
        self.disk = SimDisk(image=image, faults=self._fault)
        self.history = History()
        self.requests: collections.Counter[str] = collections.Counter()
        self.struck = self.happened = self.closing = False
        self.completions = 0
        self.errors: list[BaseException] = []
        self.tasks: list[asyncio.Task] = []
        self.store = None

    def run(self) -> None:
        try:
            with contextlib.suppress(Dropped):
                self.loop.run(self._run())
        finally:
            forget(self.store)
        if self.case.event is None or self.case.event[0] != "drop":  # its tasks are destroyed while they wait
            assert not self.loop.complaints, self.loop.complaints
        self.disk.restart()
        self.explorer.judge.look(self.disk.live, self.history.knowledge())

    def _fault(self, _index: int, kind: str) -> Fault | None:
        if not self.script.armed:
            return None
        number = self.requests[kind]
        self.requests[kind] += 1
        if self.case.fault is None or self.case.fault[:2] != (kind, number):
            return None
        self.struck = True
        return FAULTS[self.case.fault[2]]

    def _step(self, why: str) -> None:
        self.explorer.look(self.disk, self.history, why)

    async def _run(self) -> None:
        with mock.patch.object(sim_store, "SimEngine", ScriptedEngine):
            self.store = store = await sim_store.open_sim_store(self.disk, self.loop, rng=self.script)
        engine = store._core.file_io.engine
        while not isinstance(engine, ScriptedEngine):
            engine = engine.engine  # the order monitor's is between
        self.history.recovered(await read_all(store))
        engine.before_completion, engine.pairs = self._event, self.explorer.pairs
        self.disk.on_step = self._step
        self.script.armed = True
        self.tasks = [asyncio.ensure_future(self._call(name)) for name in self.case.calls]
        while left := [task for task in self.tasks if not task.done()]:
            await asyncio.wait(left)
        for task in self.tasks:
            if not task.cancelled():
                task.result()
        self.script.armed = False
        await self._finish(store)

    # --- what happens meanwhile ----------------------------------------------------------

    def _event(self) -> bool:
        """Have what happens before this completion happen; return whether something did."""
        self.completions += self.script.armed
        if not self.script.armed or self.happened or self.case.event is None:
            return False
        name, at = self.case.event
        if self.completions != at + 1:
            return False
        self.happened = True
        if name == "drop":
            raise Dropped
        if name.startswith("cancel"):
            self.tasks[int(name[-1])].cancel()
        else:
            self.tasks.append(asyncio.Task(self._call(name), loop=self.loop))
        return True

    async def _call(self, name: str) -> None:
        await getattr(self, f"_{name}", self._commit)(name)
        self._step(name)

    async def _commit(self, name: str) -> None:
        changes = {g: None if stamp is None else frame(stamp) for g, stamp in CHANGES[name].items()}
        writes = [(g, lend(content)) for g, content in changes.items() if content is not None]
        deletes = [g for g, content in changes.items() if content is None]
        store = self.store
        if name == "synced":
            await self._change(name, changes, writes, store.write_blobs_with_data_sync(writes))
        elif name == "put":
            await self._change(name, changes, writes, store.write_blob(*writes[0]))
            await self._flush(name)
        else:
            await self._change(name, changes, writes, store.commit(writes, deletes), durable=True)

    async def _change(self, name, changes, writes, coroutine, *, durable=False) -> None:
        call = self.history.begin(name, changes, atomic=durable)
        try:
            await coroutine
            self.history.end(call, durable=durable)
        except (StorePoisoned, StoreClosed) as error:
            self._failed(error, call)
        except BlobStoreIOError as error:
            self._failed(error, call if error.applied is False else None)
        except GeneratorExit:
            writes = []  # dropped: by now another run has this memory
            raise
        finally:
            for _, room in writes:
                room[:] = _PATTERN  # it is the caller's again: the engine notices where it is not

    async def _flush(self, _name: str) -> None:
        began = self.history._tick()
        try:
            await self.store.flush()
            self.history.flushed(began)
        except BlobStoreError as error:
            self._failed(error)

    async def _compaction(self, _name: str) -> None:
        with contextlib.suppress(BlobStoreError):  # it is given up where the store is closed
            await self.store._core.maintenance.start_compaction()

    async def _close_now(self, name: str) -> None:
        await self._close(name)

    async def _close(self, name: str) -> None:
        self.closing = True
        try:
            await self.store.aclose(flush=not name.endswith("_now"))
        except BlobStoreError as error:
            self._failed(error)

    def _failed(self, error: BaseException, refused=None) -> None:
        assert self.struck or (self.closing and isinstance(error, StoreClosed)), f"without a fault: {error!r}"
        if refused is not None:
            self.history.end(refused, refused=True)
        self.errors.append(error)

    # --- what must hold at the end -------------------------------------------------------

    async def _finish(self, store) -> None:
        core, fault = store._core, self.case.fault
        poisoned = core.file_io.poison_cause is not None
        if self.struck:
            if fault[0] == "sync" and FAULTS[fault[2]].errno:
                assert poisoned, "a failed fsync, and the store goes on"
            elif FAULTS[fault[2]].moved:
                assert not poisoned, "a short count poisoned the store"
                assert not [error for error in self.errors if not isinstance(error, StoreClosed)]
            elif fault[2] == "no room":
                assert not poisoned, "a lack of room poisoned the store"
        else:
            assert not poisoned
        last = None
        if not self.closing:
            await core.queue.wait_idle()
            last = await read_all(store)
            if not poisoned:
                await self._call("one")  # it goes on
                last = await read_all(store)
            await self._close("close")
        slots = core.index.slots
        assert core.queue.idle
        assert not core.groups.active.exclusive.locked(), "the log stays held"
        assert not core.file_io.syncing, "a sync has not ended"
        assert slots.count(SlotState.WRITING) == 0, "a call kept a slot"
        assert not slots._pins
        assert store._active == 0, "a call has not ended"
        assert core.file_io.engine.in_flight == 0
        if last is not None and not poisoned:
            self.disk.restart()
            live, judge = self.disk.live, self.explorer.judge
            judge.look(live, self.history.knowledge())
            found, _ = judge._found[live.size, frozenset(live.blocks.items())]
            assert found == last, "what was there is not there after a close"


class Explorer:
    """Runs cases in every order, and judges what they leave."""

    def __init__(self, *, pairs: bool = False, looks: int = 16) -> None:
        self.judge = Judge(looks=looks)
        self.pairs = pairs
        self.figures: collections.Counter[str] = collections.Counter()
        self._seen: set[object] = set()

    def look(self, disk: SimDisk, history: History, why: str) -> None:
        """Judge every crash image of this state, unless it was seen."""
        known = history.knowledge()
        key = (
            frozenset(disk.durable.blocks.items()),
            tuple((write.offset, write.data, write.size) for write in disk.unflushed),
            tuple((call.name, call.began, *rest) for call, *rest in known.calls),
        )
        self.figures["steps"] += 1
        if key in self._seen:
            return
        self._seen.add(key)
        for image in disk.all_crashes(8):
            self.judge.look(Moment(image, known, why).image, known)

    def explore(self, case: Case) -> int:
        """Run ``case`` in every order; return in how many its event happened, or all without one."""
        told: tuple[int, ...] | None = ()
        happened = 0
        with (
            # Another seed than the used store's: no log has the number of one before it.
            small_log(segment_bytes=case.segment_blocks * PAGE, large_group=2 * PAGE, seed=2),
            stuttering() if case.twice else contextlib.nullcontext(),
        ):
            while told is not None:
                run = Run(self, case, Script(told))
                try:
                    run.run()
                except Exception as error:
                    raise AssertionError(f"{error!r}\nreplay: {case} {told=}") from error
                happened += run.happened
                self.figures["orders"] += 1
                told = run.script.next()
        return happened

    def explore_all(self, cases: Iterator[Case]) -> None:
        """Explore ``cases``; an event comes before each completion, until it comes after the last one."""
        for case in cases:
            self.figures["cases"] += 1
            if case.event is None:
                self.explore(case)
                continue
            for at in itertools.count():
                name = case.event[0]
                happened = self.explore(case._replace(event=(name, at)))
                self.figures[f"{name} at some step"] += happened
                if not happened:
                    break
        self.figures["disk images"] = self.judge.opened
        self.figures["opened read-only"] = self.judge.looked


def writes_and_syncs(calls: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """The requests of ``calls`` by kind and number: frames, blocks, and syncs; some more are made in some orders."""
    frames = sum(any(CHANGES[call].values()) for call in calls)
    yield from (("write", number) for number in range(frames + len(calls)))
    yield from (("sync", number) for number in range(len(calls)))


def cases_of(calls: tuple[str, ...], *, events: tuple[str, ...], faults=tuple(FAULTS)) -> Iterator[Case]:
    """Each request of ``calls`` going wrong in each way, and each event before each completion."""
    yield Case(calls)
    yield Case(calls, twice=True)
    for (kind, number), fault in itertools.product(writes_and_syncs(calls), faults):
        if kind == "write" or FAULTS[fault].errno:
            yield Case(calls, (kind, number, fault))
    for groups in range(3):
        yield Case(calls, groups=groups, segment_blocks=4)
    for event in events:
        yield Case(calls, event=(event, 0))


@contextlib.contextmanager
def quietly_dropped():
    """Fail if a dropped store's coroutines complain when they are collected."""
    complaints: list[object] = []
    with mock.patch.object(sys, "unraisablehook", complaints.append):
        yield
        gc.collect()
    assert not complaints, complaints


def explored(*lots: Iterator[Case], pairs: bool = False) -> tuple[collections.Counter, collections.Counter]:
    """Explore the cases of ``lots``; return figures, and the census of their groups."""
    explorer = Explorer(pairs=pairs)
    with census() as seen, quietly_dropped():
        for cases in lots:
            explorer.explore_all(cases)
    return explorer.figures, seen
