"""Row 12: every public coroutine, cancelled at every step, before submission, in flight, after completion.

On the simulated disk every await of several schedules; on the real engines the same loop meets the
same awaits at moments of the disk's choosing.  What must hold is in :mod:`cancel.cases`.
"""

from __future__ import annotations

import inspect
import itertools

import pytest

from cancel.cases import CASES, MANNERS, OLD, cancelled_after, judge, nothing_is_lost, settled, sweep
from sim.rig import PAGE, guid, read_all
from uringblob import AsyncFileBlobStore

pytestmark = pytest.mark.one_interpreter

SCHEDULES = 5


def test_every_coroutine_method_has_its_row():
    methods = {
        name
        for name, value in inspect.getmembers(AsyncFileBlobStore, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    methods.remove("refresh")  # it awaits nothing in a store that is open for writing
    assert methods == {name.partition(",")[0] for name in CASES}


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("name", CASES)
def test_on_the_simulated_disk(name, manner, count_row):
    awaits = [sweep(name, manner, seed) for seed in range(SCHEDULES)]
    assert min(awaits) >= 1, "a call that ends before it begins was not cancelled at all"
    count_row(12, **{"awaits cancelled": sum(awaits)})


@pytest.mark.parametrize("leased", [True, False], ids=["leased", "unaligned"])
@pytest.mark.parametrize("name", sorted(set(CASES) - {"aclose"}))
async def test_on_the_real_engines(name, leased, engine, store_path, count_row):
    case = CASES[name]
    cancelled = 0
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.commit(OLD.items())
        for rounds in itertools.chain(range(12), (20, 50, 100)):
            outcome = await cancelled_after(rounds, case, store, leased=leased, insisting=rounds % 3 == 2)
            await settled(store)
            nothing_is_lost(store._core)
            judge(await read_all(store), case.changes, outcome, rounds)
            await store.commit(OLD.items(), [guid(9)])
            cancelled += not outcome.by_itself
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert await read_all(store) == OLD
        assert (await store.verify()).ok
    count_row(12, **{"awaits cancelled on real engines": cancelled})
