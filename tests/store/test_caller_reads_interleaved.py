"""Every order of a reader's statements and the store thread's: no slot is reused or lost, no descriptor closed.

A signal handler may raise once at each statement of unregistering (``test_caller_reads_interrupted.py`` has
it raise at every line).
"""

from __future__ import annotations

import contextlib
import types

import pytest

from store.interleaving import Loop, _digest, explore, load
from uringblob.buffers.iobuf import IoBuffer
from uringblob.store.format import pack_entry
from uringblob.store.index.shards import Shards
from uringblob.store.index.slot_states import SlotState

pytestmark = pytest.mark.one_interpreter

PAGE = 4096
GUID = bytes(16)
OLD, NEW = 2, 3


class Struck(BaseException):
    """What the handler raises."""


class Change:
    __slots__ = ("entry", "pending", "replaces")

    def __init__(self, entry):
        self.entry, self.pending, self.replaces = entry, None, None


class World:
    moment = None

    def __init__(self, twins, program, strikes):
        self.slots = twins.SlotTable(2, 6)
        self.loop = Loop()
        self.index = twins.BlobIndex(self.slots)
        self.index.load(Shards.of({GUID: pack_entry(OLD, OLD)}), [], 0)
        # As much of FrameReads and of FrameRead as a read in its caller's thread asks for.
        shared = types.SimpleNamespace(slots=self.slots, index=self.index, engine=self, verifies=False)
        frame = IoBuffer(memoryview(bytearray(PAGE)), 0, PAGE)
        self.plan = types.SimpleNamespace(
            guid=GUID, entry=pack_entry(OLD, OLD), slot=OLD, offset=OLD * PAGE, dst=frame, bounced=False
        )
        self.plan.reads = shared
        self.caller_reads = twins.CallerReads(self.slots, self.loop)
        self.open, self.reading, self.strikes, self.result = True, None, strikes, None
        self.medium = {slot: slot for slot in range(6)}
        self.threads = {"r": self._reader(), "s": self._store(program)}
        self.over = set()

    # the engine, as the reader knows it
    def read_now(self, offset, frame):
        self.reading = offset // PAGE
        first = self._look()
        yield
        second = self._look()
        self.reading = None
        assert first == second == OLD or first == second == NEW
        return frame.size

    def _look(self):
        assert self.open, "the descriptor was closed under a reader"
        assert self.slots.state(self.reading) not in (SlotState.FREE, SlotState.WRITING), (
            "reused under a reader"
        )
        return self.medium[self.reading]

    def _reader(self):
        try:
            self.result = yield from self.caller_reads.read(self.plan)
        except Struck:
            self.result = "struck"

    # the store's thread
    def _store(self, program):
        steps = program(self)  # by name: where it stands is a part of the state
        for said in steps:
            if said == "blocked":
                yield from self._answer()
            else:
                yield
        while "r" not in self.over or self.loop.calls:
            yield from self._answer()

    def _answer(self):
        """One round of the loop: what it was asked to call, or its timers."""
        if not self.loop.calls:
            yield "blocked"
            self.loop.fire_timers()
        if self.loop.calls:
            function, args = self.loop.calls.popleft()
            yield from function(*args)

    def take_and_write(self):
        """Whoever comes next takes the lowest free slots and writes them."""
        run = self.slots.allocate_run(1, SlotState.WRITING)
        yield
        self.medium[run.slot] = "another's"

    # stepping
    def choices(self):
        names = [name for name in self.threads if name not in self.over and not self._blocked(name)]
        return names + (["!"] if self.strikes and "r" in names and self._unregisters() else [])

    def _unregisters(self):
        step = self.threads["r"]
        while step is not None and step.gi_code.co_name != "unregister":
            step = step.gi_yieldfrom
        return step is not None

    def _blocked(self, name):
        if name != "s" or not getattr(self, "waits", False):
            return False
        polls = self.loop.timers and not self.slots.caller_reads  # earlier, it would only poll again
        return not self.loop.calls and not polls and "r" not in self.over

    def step(self, choice):
        thread = self.threads["s" if choice == "s" else "r"]
        try:
            if choice == "!":
                self.strikes -= 1
                self.reading = None
                said = thread.throw(Struck())
            else:
                said = next(thread)
            if choice == "s":
                self.waits = said == "blocked"
        except StopIteration:
            self.over.add("s" if choice == "s" else "r")

    def key(self):
        shared = self.slots, self.index
        return (
            *(_digest(vars(thing)) for thing in shared),
            _digest(list(self.threads.values())), len(self.loop.calls), len(self.loop.timers),
            repr([args for _, args in self.loop.calls]), self.caller_reads._closing,
            self.open, self.reading, self.strikes, str(self.result), tuple(self.medium.values()),
            getattr(self, "waits", False), _digest(self.moment),
        )  # fmt: skip

    def wind_up(self):
        """Let the reader end: it cannot be stopped half-way."""
        self._look = lambda: OLD
        self.loop.calls.clear()
        with contextlib.suppress(AssertionError):
            for _ in self.threads["r"]:
                pass

    def end(self):
        assert self.over == {"r", "s"}, "a thread waits for ever"
        assert not self.slots.caller_reads, "a reader stayed"
        assert not self.slots._awaiting_readers, "a slot is retired for ever"
        assert not self.slots.count(SlotState.RETIRED), "a slot whose fences have passed is not free"


class SnapshotWorld(World):
    """The reader reads through a snapshot, which was taken before."""

    def __init__(self, twins, program, strikes):
        super().__init__(twins, program, strikes)
        self.moment = self.plan.reads.index = self.index.moments.begin(self.index, holds=True)

    def _reader(self):
        entry = yield from self.moment.find(GUID)
        assert entry == self.plan.entry or not self.moment.is_open, "a snapshot shows what was written later"
        yield from super()._reader()

    def end_snapshot(self):
        yield from self.index.moments.end_moment(self.moment)
        for slot in list(self.moment.held_slots()):
            yield from self.slots.release(slot)

    def _look(self):
        seen = super()._look()
        assert seen == OLD, "a snapshot shows what was written later"
        return seen


def overwrite(world):
    """A commit is durable, the next one too, and then somebody takes the slot of the old frame."""
    world.slots.allocate_run(1, SlotState.WRITING)
    group = {GUID: Change(pack_entry(NEW, NEW))}
    world.index.begin_group(group)
    yield from world.index.finish_group(group, 1)
    yield from world.slots.confirm(1)
    yield from world.take_and_write()


def delete(world):
    group = {GUID: Change(None)}
    world.index.begin_group(group)
    yield from world.index.finish_group(group, 1)
    yield from world.slots.confirm(1)
    yield from world.take_and_write()


def overwrite_beside_a_snapshot(world):
    """What it shows is not reused before it is closed, and is used again afterwards."""
    yield from overwrite(world)
    yield from world.end_snapshot()
    yield from world.take_and_write()


def publish_beside_a_snapshot(world):
    """The same with a pending frame, of which a later one takes the place."""
    run = world.slots.allocate_run(1, SlotState.WRITING)
    yield from world.index.publish([(GUID, pack_entry(run.slot, run.slot))], synced=False)
    yield from world.end_snapshot()
    yield from world.take_and_write()


def end(world):
    yield from world.caller_reads.close()
    world.open = False


#: With how many strikes of a handler: they make more states.
PROGRAMS = {delete: 1, end: 1, overwrite: 0}
SNAPSHOT_PROGRAMS = {overwrite_beside_a_snapshot: 0, publish_beside_a_snapshot: 1}
BROKEN = {
    "no second look": ("or reads.index.find(read.guid) != read.entry:", "or False:"),
    "a look before registering": ("        self._slots.caller_reads[caller] = caller.slot\n        return not self._closing",
                                  "        closing = self._closing\n        self._slots.caller_reads[caller] = caller.slot\n        return not closing"),
    "a look before unregistering": ("        self._slots.caller_reads.pop(caller, None)\n        if self._slots.awaits_readers(caller.slot):",
                                    "        waits = self._slots.awaits_readers(caller.slot)\n        self._slots.caller_reads.pop(caller, None)\n        if waits:"),
    "a look before it says that it waits": ("        self._awaiting_readers.add(slot)\n        self.try_free(slot)",
                                            "        if not self._is_read_by_caller(slot):\n            self.move(slot, _S.FREE)\n        else:\n            self._awaiting_readers.add(slot)"),
    "a look before it says that it closes": ("        self._closing = True\n        while self._slots.caller_reads:",
                                             "        inside = bool(self._slots.caller_reads)\n        self._closing = True\n        while inside and self._slots.caller_reads:"),
    "a look for its own task's readers only": ("if slot in self._pins or self.caller_reads:", "if slot in self._pins:"),
    "nobody looks for readers": ("return bool(self.caller_reads) and slot in", "return False and slot in"),
    "unregistering is done once only": ("        except BaseException:\n            self.unregister(caller)\n", "        except BaseException:\n"),
}  # fmt: skip
OF_THE_END = {"a look before registering", "a look before it says that it closes"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_interleaving(program, record_property):
    twins = load()
    states, schedules = explore(lambda: World(twins, program, PROGRAMS[program]))
    record_property("interleavings", schedules)
    print(f"{program.__name__}: {states} states, {schedules} interleavings")
    assert states > 100
    assert schedules > 10_000


@pytest.mark.parametrize("broken", BROKEN)
def test_each_order_is_needed(broken):
    twins = load(BROKEN[broken])
    program = end if broken in OF_THE_END else delete
    with pytest.raises(AssertionError, match="replay: "):
        explore(lambda: World(twins, program, PROGRAMS[program]))


@pytest.mark.parametrize("program", SNAPSHOT_PROGRAMS)
def test_every_interleaving_of_a_snapshot(program, record_property):
    twins = load()
    states, schedules = explore(lambda: SnapshotWorld(twins, program, SNAPSHOT_PROGRAMS[program]))
    record_property("interleavings", schedules)
    print(f"{program.__name__}: {states} states, {schedules} interleavings")
    assert states > 100
    assert schedules > 10_000


#: Each order of a snapshot's own taken out.
BROKEN_SNAPSHOTS = {
    "recorded after the question": ("        entry = self._index.find_below(guid)\n        if guid in self.entries:\n            entry = self.entries.get(guid)\n",
                                    "        known = guid in self.entries\n        entry = self.entries.get(guid) if known else self._index.find_below(guid)\n"),
    "ended after it is let go of": ("return entry if self.is_open else None", "return entry"),
    "what is held is retired like any other": ("        if slot in self._holds:\n            self._held[slot] = fence\n        elif", "        if False:\n            pass\n        elif"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN_SNAPSHOTS)
def test_each_order_of_a_snapshot_is_needed(broken):
    twins = load(BROKEN_SNAPSHOTS[broken])
    with pytest.raises(AssertionError, match="replay: "):
        explore(lambda: SnapshotWorld(twins, overwrite_beside_a_snapshot, 0))
