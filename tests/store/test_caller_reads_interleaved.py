"""Every order of a visitor's statements and the store thread's: no slot is reused, lost, or closed under him.

A signal handler may raise once at each statement of his leaving (``test_visitors_struck.py`` has it
raise at every line).
"""

from __future__ import annotations

import contextlib

import pytest

from store.interleaving import Loop, _digest, explore, load
from uringblob.buffers.iobuf import IoBuffer
from uringblob.store.format import pack_entry
from uringblob.store.index.shards import Shards
from uringblob.store.index.slots import SlotState

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
    def __init__(self, twins, program, strikes):
        self.slots = twins.SlotTable(2, 6)
        self.loop = Loop()
        self.index = twins.BlobIndex(self.slots)
        self.visitors = twins.CallerReads(self.slots, self.loop)
        self.index.load(Shards.of({GUID: pack_entry(OLD, OLD)}), [], 0)
        self.open, self.reading, self.strikes, self.result = True, None, strikes, None
        self.memory_align = 1
        self.medium = {slot: slot for slot in range(6)}
        frame = IoBuffer(memoryview(bytearray(PAGE)), 0, PAGE)
        self.visit = twins.CallerRead(self.visitors, self.index, self, GUID, frame)
        self.threads = {"v": self._visitor(), "s": self._store(program)}
        self.over = set()

    # the engine, as the visitor knows it
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

    def _visitor(self):
        try:
            self.result = yield from self.visit.see_through(verify=False)
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
        while "v" not in self.over or self.loop.calls:
            yield from self._answer()

    def _answer(self):
        """One round of the loop: what it was asked to call."""
        if not self.loop.calls:
            yield "blocked"
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
        return names + (["!"] if self.strikes and "v" in names and self._leaves() else [])

    def _leaves(self):
        step = self.threads["v"]
        while step is not None and step.gi_code.co_name != "leave":
            step = step.gi_yieldfrom
        return step is not None

    def _blocked(self, name):
        if name != "s" or not getattr(self, "waits", False):
            return False
        return not self.loop.calls and "v" not in self.over

    def step(self, choice):
        thread = self.threads["s" if choice == "s" else "v"]
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
            self.over.add("s" if choice == "s" else "v")

    def key(self):
        shared = self.slots, self.index
        return (
            *(_digest(vars(thing)) for thing in shared),
            _digest(self.visit), _digest(list(self.threads.values())), len(self.loop.calls),
            repr([args for _, args in self.loop.calls]), self.visitors._closing, self.visitors._gone is None,
            self.open, self.reading, self.strikes, str(self.result), tuple(self.medium.values()),
            getattr(self, "waits", False),
        )  # fmt: skip

    def wind_up(self):
        """Let the visitor end, who cannot be stopped half-way."""
        self._look = lambda: OLD
        self.loop.calls.clear()
        with contextlib.suppress(AssertionError):
            for _ in self.threads["v"]:
                pass

    def end(self):
        assert self.over == {"v", "s"}, "a thread waits for ever"
        assert not self.slots.visits, "a visitor stayed"
        assert not self.slots._awaiting_readers, "a slot is retired for ever"


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


def end(world):
    yield from world.visitors.close()
    world.open = False


#: With how many strikes of a handler: they make more states.
PROGRAMS = {delete: 1, end: 1, overwrite: 0}
BROKEN = {
    "no second look": ("or manifest.find(self._guid) != entry:", "or False:"),
    "a look before entering": ("        self._slots.visits[visit] = visit.slot\n        return not self._closing",
                               "        closing = self._closing\n        self._slots.visits[visit] = visit.slot\n        return not closing"),
    "a look before leaving": ("        self._slots.visits.pop(visit, None)\n        if self._closing or self._slots.awaits_readers(visit.slot):",
                              "        waits = self._closing or self._slots.awaits_readers(visit.slot)\n        self._slots.visits.pop(visit, None)\n        if waits:"),
    "a look before it says that it waits": ("        self._awaiting_readers.add(slot)\n        self.try_free(slot)",
                                            "        if not self._is_visited(slot):\n            self.move(slot, _S.FREE)\n        else:\n            self._awaiting_readers.add(slot)"),
    "a look before it says that it closes": ("        self._closing = True\n        if self._slots.visits:",
                                             "        inside = bool(self._slots.visits)\n        self._closing = True\n        if inside:"),
    "nobody looks for visitors": ("return bool(self.visits) and slot in", "return False and slot in"),
    "leaving is done once only": ("self._slots.visits.pop(visit, None)\n        if self._closing or",
                                  "slot = self._slots.visits.pop(visit, None)\n        if self._closing or slot is not None and"),
}  # fmt: skip
OF_THE_END = {"a look before entering", "a look before it says that it closes"}


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
