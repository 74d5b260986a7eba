"""The rig must be able to fail: each planted bug is found, by the random lives or by the sequences.

Each bug is a small patch of the store; none of these tests looks at what it patched.  A bug that is
no longer found is a hole in the rig, not in the bug.
"""

from __future__ import annotations

import contextlib
import itertools
from unittest import mock

import pytest

from sim.rig import PAGE, life_with_fault, small_log, torture
from sim.test_bits import Victim, check_frames, check_log, check_superblocks
from sim.test_crash import options_of
from uringblob import transfers
from uringblob.errors import BlobStoreError
from uringblob.store import core, groups, log, manifest, medium, recovery, slots, superblocks
from uringblob.store.compaction import Compaction
from uringblob.store.format import BlockType

pytestmark = pytest.mark.one_interpreter

#: Seeds to go through before a bug counts as not found.
PATIENCE = 150


def replaced(owner, name, new):
    return mock.patch.object(owner, name, new)


@contextlib.contextmanager
def no_fsync_before_acknowledging():
    async def sync(self, what):
        riders, self._riders = self._riders, []
        if not what.startswith("commit of group"):
            await transfers.sync(self.engine, what)
        for rider in riders:
            rider.finish(None)

    with replaced(medium.Medium, "sync", sync):
        yield


@contextlib.contextmanager
def fsync_before_the_frames_have_landed():
    """The log block and the fsync go out; the frames are waited for afterwards."""
    write = groups._Group.write

    async def hasty(self):
        landed, unlanded = [m.landed for m in self._members], self._unlanded

        async def not_yet():
            return {}

        self._unlanded = not_yet
        result = await write(self)
        self._unlanded = unlanded
        assert len(landed) == len(self._members)
        return result or await unlanded()

    with replaced(groups._Group, "write", hasty):
        yield


@contextlib.contextmanager
def tail_not_wiped():
    real = recovery.make_writable

    async def lazy(medium_, found, *superblocks):
        found.tail.dirty_blocks.clear()
        await real(medium_, found, *superblocks)

    from uringblob.store import opening

    with replaced(opening, "make_writable", lazy):
        yield


@contextlib.contextmanager
def doubtful_group_accepted_unverified():
    async def trusting(_medium, _found, _page_size):
        return None

    with replaced(recovery, "_first_bad_frame", trusting):
        yield


@contextlib.contextmanager
def slots_freed_when_superseded():
    real = slots.SlotTable.retire
    with replaced(slots.SlotTable, "retire", lambda self, slot, _fence: real(self, slot, 0)):
        yield


@contextlib.contextmanager
def slots_freed_with_the_last_group():
    real = slots.SlotTable.confirm
    with replaced(slots.SlotTable, "confirm", lambda self, seq: real(self, seq + 1)):
        yield


@contextlib.contextmanager
def slots_freed_under_their_readers():
    def drain(self, slot):
        self.move(slot, slots.SlotState.FREE)

    def unhold(self, slot):
        holders = self._holds.pop(slot) - 1
        if holders:
            self._holds[slot] = holders

    with replaced(slots.SlotTable, "_drain", drain), replaced(slots.SlotTable, "unhold", unhold):
        yield


@contextlib.contextmanager
def old_log_freed_before_the_superblocks():
    real = superblocks.Superblocks.write_both

    async def lazily(self, new):
        await self._write_older(new)

    with replaced(superblocks.Superblocks, "write_both", lazily):
        yield
    assert real is superblocks.Superblocks.write_both


@contextlib.contextmanager
def superblocks_not_flushed_apart():
    """Both superblocks are written, then one fsync."""

    async def together(self, new):
        for _ in range(2):
            offset = 4096 - self._offset
            block = superblocks.dataclasses.replace(new, revision=self.current.revision + 1)
            await self._medium.write(offset, block.encode(offset), "writing a superblock")
            self.current, self._offset = block, offset
        await self._medium.sync("writing a superblock")

    with replaced(superblocks.Superblocks, "write_both", together):
        yield


@contextlib.contextmanager
def snapshot_of_the_visible_map():
    real = manifest.Manifest.freeze

    def freeze(self):
        frozen = dict(real(self))
        for name, pending in self._pending.items():
            if pending.entry is None:
                frozen.pop(name, None)
            else:
                frozen[name] = pending.entry
        return iter(list(frozen.items())[: len(self._base)])

    with replaced(manifest.Manifest, "freeze", freeze):
        yield


@contextlib.contextmanager
def carry_forgotten():
    with replaced(manifest.Manifest, "delta", lambda _self: {}):
        yield


@contextlib.contextmanager
def new_log_not_flushed_before_the_switch():
    real = medium.Medium.sync
    carry = Compaction._carry
    carrying = []

    async def sync(self, what):
        if not carrying:
            await real(self, what)

    async def careless(self, old, new):
        carrying.append(1)
        await carry(self, old, new)
        carrying.clear()

    with replaced(medium.Medium, "sync", sync), replaced(Compaction, "_carry", careless):
        yield


@contextlib.contextmanager
def seal_before_the_flush():
    real = core.Core.close

    async def close(self, *, flush):
        if self.medium.poison_cause is None:
            await self.superblocks.seal(self.queue.log.seq + 1)
        await real(self, flush=flush)

    with replaced(core.Core, "close", close):
        yield


@contextlib.contextmanager
def group_dropped_though_a_later_one_stands():
    """A bad group ends the log without a word, whatever stands behind it."""
    with (
        replaced(recovery, "_check_tail", lambda *_: None),
        replaced(
            recovery,
            "_is_in_doubt",
            lambda found: (
                found.seq > found.floor
                and bool(found.last_group)
                and found.last_group[0][1].type is BlockType.GROUP
            ),
        ),
    ):
        yield


@contextlib.contextmanager
def segment_linked_before_it_is_zeroed():
    async def zero(_self, _segment):
        return None

    with replaced(log.Log, "zero", zero):
        yield


@contextlib.contextmanager
def frames_said_to_be_synced():
    with (
        replaced(groups, "FLAG_FRAMES_SYNCED", 1),
        replaced(groups._Group, "_sync_first", _claims_to_have_synced),
    ):
        yield


async def _claims_to_have_synced(_self):
    return True, {}


@contextlib.contextmanager
def write_in_place():
    """A frame is written over the one its blob has already."""
    real = core.Core._prepare

    async def prepare(self, writes):
        batch = await real(self, writes)
        for name, content in writes.items():
            entry = self.manifest.find_durable(name)
            if entry is not None:
                await self.medium.write((entry >> 64) * PAGE, bytes(content), "in place")
        return batch

    with replaced(core.Core, "_prepare", prepare):
        yield


FOUND_BY_CRASHES = [
    no_fsync_before_acknowledging,
    fsync_before_the_frames_have_landed,
    tail_not_wiped,
    doubtful_group_accepted_unverified,
    slots_freed_under_their_readers,
    superblocks_not_flushed_apart,
    old_log_freed_before_the_superblocks,
    snapshot_of_the_visible_map,
    carry_forgotten,
    new_log_not_flushed_before_the_switch,
    seal_before_the_flush,
    segment_linked_before_it_is_zeroed,
    frames_said_to_be_synced,
    write_in_place,
]


@pytest.mark.parametrize("bug", FOUND_BY_CRASHES, ids=lambda bug: bug.__name__)
def test_found_by_random_lives(bug, capsys):
    with bug():
        for seed in range(PATIENCE):
            try:
                torture(seed, **options_of(seed))
            except AssertionError as error:
                with capsys.disabled():
                    print(f"\n{bug.__name__}: {str(error).splitlines()[-1]}", end=" ")
                return
    pytest.fail(f"{bug.__name__} lived through {PATIENCE} seeds")


# --- bugs that only rot shows --------------------------------------------------------------------

FOUND_BY_BITS = [
    slots_freed_when_superseded,
    slots_freed_with_the_last_group,
    group_dropped_though_a_later_one_stands,
]


@pytest.mark.parametrize("bug", FOUND_BY_BITS, ids=lambda bug: bug.__name__)
def test_found_by_flipped_bits(bug):
    def look():
        for compactions, closed in ((0, False), (1, False)):
            victim = Victim(compactions=compactions, closed=closed)
            check_superblocks(victim, 997)
            check_frames(victim, 997)
            check_log(victim, 997)

    with small_log(segment_bytes=8 * PAGE):
        look()
        with bug(), pytest.raises((AssertionError, BlobStoreError)):
            look()


# --- bugs that only a failed request shows -----------------------------------------------------


@contextlib.contextmanager
def failed_group_not_wiped():
    async def careless(_self, _stretches):
        return None

    with replaced(log.Log, "wipe", careless):
        yield


@contextlib.contextmanager
def failed_fsync_tried_again():
    async def stubborn(engine, what):
        rc = await engine.sync()
        if rc < 0:
            rc = await engine.sync()
        transfers._check_sync(rc, what)

    with replaced(transfers, "sync", stubborn):
        yield


@contextlib.contextmanager
def short_write_taken_for_whole():
    async def careless(*_args):
        return None

    with replaced(transfers, "_finish_write", careless):
        yield


@contextlib.contextmanager
def log_error_ignored():
    async def careless(_self, _error, _stretches):
        return None

    with replaced(log.Log, "settle_failed", careless):
        yield


FOUND_BY_FAULTS = {
    failed_group_not_wiped: "ENOSPC",
    failed_fsync_tried_again: "EIO",
    short_write_taken_for_whole: "short by 512",
    log_error_ignored: "EIO",
}


@pytest.mark.parametrize("bug", FOUND_BY_FAULTS, ids=lambda bug: bug.__name__)
def test_found_by_faults(bug, capsys):
    with bug():
        for seed in range(PATIENCE):
            for index in itertools.count():
                try:
                    if life_with_fault(seed, FOUND_BY_FAULTS[bug], index, forever=False, calls=14) is None:
                        break
                except AssertionError as error:
                    with capsys.disabled():
                        print(f"\n{bug.__name__}: {str(error).splitlines()[-1]}", end=" ")
                    return
    pytest.fail(f"{bug.__name__} lived through {PATIENCE} seeds")
