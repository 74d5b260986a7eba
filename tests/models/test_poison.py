"""What a store shows after each kind of poison, for every request that can bring it about.

The random histories meet the rare one, a superblock that is half written, once in a few hundred.
"""

from __future__ import annotations

import collections
import contextlib
import errno

import pytest

from models.drivers import ERRORS, Simulated
from models.machine import GUIDS, StoreMachine
from sim.lives import small_log
from uringblob import BlobStoreError
from uringblob.store import closing

pytestmark = pytest.mark.one_interpreter


class Simulation(StoreMachine):
    def make_driver(self, seed):
        return Simulated(seed)


async def compaction(core):
    await core.maintenance.start_compaction()


async def seal(core):
    await closing._seal(core)


#: What goes on while a request fails.
BUSY = {
    "a commit": lambda machine: machine.commit({GUIDS[0]: 77, GUIDS[5]: 78}, {GUIDS[1]}),
    "a flush": lambda machine: (machine.write_blobs({GUIDS[0]: 77}, synced=False), machine.flush()),
    "a compaction": lambda machine: machine.driver.loop.run(compaction(machine.driver.store._core)),
    "a seal": lambda machine: machine.driver.loop.run(seal(machine.driver.store._core)),
}


def struck(busy, nth, number, disk_seed):
    """Let the ``nth`` request fail; return what poisoned the store, and what ``verify`` then named."""
    machine = Simulation()
    machine.begin(disk_seed)
    machine.commit({guid: n for n, guid in enumerate(GUIDS[:4])}, set())
    with machine.driver.fault(nth, number), contextlib.suppress(BlobStoreError):
        BUSY[busy](machine)
        machine.driver.settle()
    stats = machine.driver.call("stats")
    machine.poisoned = bool(stats.poisoned)
    machine.read_everything()
    named = machine.driver.call("verify").metadata_errors
    machine.reopen(flush=True)
    machine.read_everything()
    machine.teardown()
    return stats.poisoned, named


@pytest.mark.parametrize("busy", BUSY)
def test_what_is_good_stays_good_and_only_a_half_written_superblock_is_named(busy):
    causes = collections.Counter()
    with small_log():
        for disk_seed in range(6):
            for nth in range(1, 16):
                poisoned, named = struck(busy, nth, ERRORS[nth % len(ERRORS)], disk_seed)
                causes["a superblock" if "superblock" in poisoned else "another" if poisoned else "none"] += 1
                causes["named"] += bool(named)
    assert causes["none"], "behind the last request nothing fails"
    if busy in {"a compaction", "a seal"}:
        assert causes["a superblock"]
        assert causes["named"], "none was torn: this shows nothing"
    else:
        assert causes["another"]
        assert not causes["named"]


def test_a_poisoned_stores_report_does_not_hide_other_damage():
    """A superblock is forgiven, and nothing else is."""
    with small_log():
        machine = Simulation()
        machine.begin(1)
        machine.commit({guid: n for n, guid in enumerate(GUIDS[:4])}, set())
        core = machine.driver.store._core
        machine.driver.settle()
        with machine.driver.fault(1, errno.EIO), contextlib.suppress(BlobStoreError):
            machine.driver.loop.run(seal(core))
        assert "superblock" in core.file_io.poison_cause.args[-1]
        head = core.log.segments[0].slot * core.page_size
        machine.driver.disk.live.write(head + 40, b"rot")
        with pytest.raises(AssertionError):
            machine.verified()
        machine.teardown()
