"""The state machine: random calls, faults, reopenings, deaths and power cuts against a simple model.

The model is a dict: what each guid may show now.  One value as long as nothing failed; after a call
that raised, the old one or the new one, until a read says which.  What must be there after a death or
a power cut is judged by :class:`uringblob.testing.History`.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.drivers import ERRORS, PAGE
from uringblob import BlobNotFound, BlobStoreIOError, StorePoisoned
from uringblob.testing.sim.history import History

GUIDS = [bytes([n]) * 16 for n in range(6)]
GUID = st.sampled_from(GUIDS)
WRITES = st.dictionaries(GUID, st.integers(0, 1 << 30), min_size=1, max_size=4)
NTH = st.integers(1, 6)


def content(stamp: int) -> bytes:
    return stamp.to_bytes(8, "little") * (PAGE // 8)


def changes_of(writes, deletes=()) -> dict[bytes, bytes | None]:
    return {**{g: content(stamp) for g, stamp in writes.items()}, **dict.fromkeys(deletes)}


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say what ``make_driver(seed)`` makes."""

    def make_driver(self, seed: int):
        raise NotImplementedError

    @initialize(seed=st.integers(0, 1 << 20))
    def begin(self, seed):
        self.driver = self.make_driver(seed)
        self.history = History()
        self.may: dict[bytes, set[bytes | None]] = {guid: {None} for guid in GUIDS}
        self.poisoned = False

    def teardown(self):
        if hasattr(self, "driver"):
            self.driver.end()

    # --- one call ------------------------------------------------------------------------

    def change(self, name, args, changes, *, atomic=False, durable=False) -> None:
        call = self.history.begin(name, changes, atomic=atomic)
        try:
            self.driver.call(name, *args)
        except StorePoisoned:
            self.poisoned = True
            self.history.end(call, refused=True)
        except BlobStoreIOError as error:
            if error.applied is False:
                self.history.end(call, refused=True)
            self.poisoned = self.poisoned or bool(self.driver.call("stats").poisoned)
            for guid, new in changes.items():
                self.may[guid] = self.may[guid] | {new}
        else:
            assert not self.poisoned or not changes, "a poisoned store took a change"
            self.history.end(call, durable=durable)
            for guid, new in changes.items():
                self.may[guid] = {new}

    @rule(guid=GUID, stamp=st.integers(0, 1 << 30))
    def write_blob(self, guid, stamp):
        self.change("write_blob", (guid, content(stamp)), {guid: content(stamp)})

    @rule(writes=WRITES, synced=st.booleans())
    def write_blobs(self, writes, synced):
        changes = changes_of(writes)
        name = "write_blobs_with_data_sync" if synced else "write_blobs"
        self.change(name, (list(changes.items()),), changes)

    @rule(guid=GUID)
    def delete_blob(self, guid):
        self.change("delete_blob", (guid,), {guid: None})

    @rule(
        writes=st.dictionaries(GUID, st.integers(0, 1 << 30), max_size=4), deletes=st.sets(GUID, max_size=3)
    )
    def commit(self, writes, deletes):
        changes = changes_of(writes, deletes - set(writes))
        self.change(
            "commit",
            (
                [(g, c) for g, c in changes.items() if c is not None],
                [g for g, c in changes.items() if c is None],
            ),
            changes,
            atomic=True,
            durable=True,
        )

    @rule()
    def flush(self):
        began = self.history._tick()
        try:
            self.driver.call("flush")
        except (StorePoisoned, BlobStoreIOError):
            self.poisoned = self.poisoned or bool(self.driver.call("stats").poisoned)
        else:
            self.history.flushed(began)
            if "reopen" in self.driver.can:
                # The log's own next step may have met the fault behind the flush's back.
                self.poisoned = self.poisoned or bool(self.driver.call("stats").poisoned)
                assert self.poisoned or not self.driver.call("needs_flush")

    @rule(data=st.data(), count=st.integers(2, 5))
    def several_at_once(self, data, count):
        """Each of its own guid, so that the model knows the outcome."""
        if self.poisoned:
            return
        guids = data.draw(st.permutations(GUIDS))[:count]
        calls, changes = [], []
        for guid in guids:
            stamp = data.draw(st.integers(0, 1 << 30))
            name = data.draw(st.sampled_from(("write_blob", "commit", "delete_blob")))
            new = None if name == "delete_blob" else content(stamp)
            args = {"write_blob": (guid, new), "commit": ([(guid, new)],), "delete_blob": (guid,)}[name]
            calls.append((name, *args))
            changes.append(self.history.begin(name, {guid: new}, atomic=name == "commit"))
        outcomes = self.driver.gather([*calls, ("flush",)])
        for (name, *_), call, outcome in zip(calls, changes, outcomes, strict=False):
            assert outcome is None, outcome
            self.history.end(call, durable=name == "commit")
            for guid, new in call.changes.items():
                self.may[guid] = {new}

    # --- looking -------------------------------------------------------------------------

    @rule(guid=GUID)
    def read(self, guid):
        self.seen(guid)

    def seen(self, guid) -> bytes | None:
        room = bytearray(b"\xee") * PAGE
        try:
            self.driver.call("read_blob", guid, room)
            found = bytes(room)
        except BlobNotFound:
            assert room == b"\xee" * PAGE, "a blob that is not there was read"
            found = None
        assert found in self.may[guid], f"{guid.hex()} shows what nobody wrote, or something older"
        assert self.driver.call("has_blob", guid) is (found is not None)
        self.may[guid] = {found}
        return found

    @rule()
    def read_everything(self):
        found = {guid: self.seen(guid) for guid in GUIDS}
        there = [guid for guid in GUIDS if found[guid] is not None]
        assert sorted(self.driver.call("list_blobs")) == there
        rooms = [bytearray(PAGE) for _ in GUIDS]
        errors = self.driver.call("read_blobs", list(zip(GUIDS, rooms, strict=True)))
        assert [isinstance(e, BlobNotFound) for e in errors] == [found[g] is None for g in GUIDS]
        assert [bytes(r) for r, e in zip(rooms, errors, strict=True) if e is None] == [
            found[g] for g in there
        ]
        self.verified()

    def verified(self) -> None:
        """Everything is good, but for a superblock whose writing failed: poisoned, or there was no room.

        No other failure leaves a mark: a group's blocks lie behind the last one that was durable, and a
        frame whose writing failed was never shown.
        """
        report = self.driver.call("verify")
        assert report.bad == (), report
        stats = self.driver.call("stats")
        if "reopen" in self.driver.can and (stats.poisoned or getattr(self.driver, "faulted", False)):
            self.poisoned = bool(stats.poisoned)
            assert len(report.metadata_errors) <= 1, report
            assert all("the superblock at offset" in str(error) for error in report.metadata_errors), report
        else:
            assert report.ok, report

    @rule(guid=GUID)
    def a_lease(self, guid):
        buffer = self.driver.call("alloc_blob_buf_zeroed")
        try:
            assert not any(buffer.view)
            self.change("write_blob", (guid, buffer), {guid: bytes(PAGE)})
        finally:
            buffer.release()

    @invariant()
    def nothing_is_held(self):
        if hasattr(self, "driver"):
            assert self.driver.call("stats").buffers_leased == 0

    # --- what goes wrong -----------------------------------------------------------------

    @precondition(lambda self: "fault" in self.driver.can and not self.poisoned)
    @rule(writes=WRITES, nth=NTH, number=st.sampled_from(ERRORS), name=st.sampled_from(("write", "commit")))
    def a_change_meets_a_fault(self, writes, nth, number, name):
        with self.driver.fault(nth, number):
            if name == "commit":
                self.commit(writes, set())
            else:
                self.write_blobs(writes, synced=False)
                self.flush()
            # The fault may strike what the store does for itself behind the call's back.
            self.driver.settle()
        self.poisoned = self.poisoned or bool(self.driver.call("stats").poisoned)

    @precondition(lambda self: "reopen" in self.driver.can)
    @rule(flush=st.booleans())
    def reopen(self, flush):
        began = self.history._tick()
        try:
            self.driver.call("aclose", flush)
            closed = flush
        except (StorePoisoned, BlobStoreIOError):
            closed = False
        if closed and not self.poisoned:
            self.history.flushed(began)
        self.recovered()

    @precondition(lambda self: "die" in self.driver.can)
    @rule()
    def die(self):
        self.driver.die()
        self.recovered()

    @precondition(lambda self: "crash" in self.driver.can)
    @rule()
    def crash(self):
        self.driver.crash()
        self.recovered()

    def recovered(self) -> None:
        self.driver.open()
        self.poisoned = False
        self.may = {guid: {None, *(c.changes.get(guid) for c in self.history.calls)} for guid in GUIDS}
        found = {guid: self.seen(guid) for guid in GUIDS}
        there = {guid: seen for guid, seen in found.items() if seen is not None}
        History.judge(self.history.knowledge(), there)
        self.history.recovered(there)
