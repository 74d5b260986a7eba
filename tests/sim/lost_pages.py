"""A flush fails and the cache hides it: what a later opener shows must outlive a power cut (rule 12).

Through a page cache a write that a failed flush lost is still read, and no later flush writes it out.
The process that was told poisons its store; the next one is told nothing.  So what it takes for the
last group it has to write again.
"""

from __future__ import annotations

import random

from sim.faulty import FAULTS, Compound, Failing
from sim.judging import contents, read_only_view, recover, without_the_unproved_group
from sim.lives import PAGE, Life, forget, frame, guid, lent, read_all, small_log, used_image
from uringblob.testing.sim.history import History
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

#: Frames that find no room leave groups to be wiped, and it is that flush which may fail.
NO_ROOM = 12
#: Images looked at for each step.
CUTS = 2


def reopened_on_its_cache(seed: int, index: int) -> bool:
    """Live until the ``index``-th flush fails, open what the cache shows, go on, and cut the power anywhere.

    Returns false if the life of ``seed`` has fewer flushes.
    """
    rng = random.Random(seed)
    failing = Failing(index, FAULTS["EIO"], kinds=("sync",))
    full = [Failing(rng.randrange(60), FAULTS["ENOSPC"], kinds=("write",)) for _ in range(seed % 2 * NO_ROOM)]
    with small_log(seed=seed, segment_bytes=4 * PAGE):
        life = Life(
            used_image(24),
            rng,
            faults=Compound([failing, *full]),
            images_per_step=0,
            calls=14,
            compactions=0.2,
        )
        try:
            life.run()
            if failing.struck:
                life.disk.faults = None
                _go_on(life.disk, life.history.knowledge(), rng)
        except Exception as error:
            raise AssertionError(f"{error!r}\nreplay: reopened_on_its_cache {seed=} {index=}") from error
    return bool(failing.struck)


def _look(disk) -> None:
    """What a read-only opener shows is there after a power cut, whether it read the cache or the medium."""
    disk.restart(cache_kept=True)
    medium, cache = disk.durable.copy(), disk.live.copy()
    lasting = contents(medium)
    assert read_only_view(medium) == lasting, "a read-only opener and a writable one disagree"
    found, notes = read_only_view(cache, direct_io=False, disk=disk)
    settled = without_the_unproved_group(cache)
    # The medium may hold the group that the cache could not prove.
    assert found == (lasting[0] if settled is None else settled), "what was shown is lost, or less was shown"
    assert settled in (None, lasting[0]) or "cache" in str(notes), "a group is left out without a word"


def _go_on(disk, known, rng: random.Random) -> None:
    loop, history = SimLoop(), History()
    stores = []

    def cut(_why: str) -> None:
        for _ in range(CUTS):
            recover(disk.crash(rng), history.knowledge() if history.calls else known)

    _look(disk)

    async def run() -> None:
        disk.on_step = cut
        stores.append(store := await open_sim_store(disk, loop, direct_io=False, cache_kept=True))
        found = await read_all(store)
        History.judge(known, found)
        history.recovered(found)
        cut("opened")
        for change in ({guid(1): frame(1 << 40)}, {guid(1): None}, {guid(2): frame(1 << 41)}):
            call = history.begin("commit", change, atomic=True)
            writes = {name: content for name, content in change.items() if content is not None}
            await store.commit(lent(writes), [name for name in change if name not in writes])
            history.end(call, durable=True)
            cut("acknowledged")
        await store.aclose()

    try:
        loop.run(run())
    finally:
        disk.on_step = lambda _why: None
        for store in stores:
            forget(store)
