"""The suite must be able to fail: every planted bug is found, by the rig or by the order monitor.

A bug that is no longer found is a hole in the suite, not in the bug.  What found it, the seed and the
number of images that it took are printed.
"""

from __future__ import annotations

import gc

import pytest

import seeds
from sim.cancelling import cancelling_life
from sim.hunts import hunt_for, why_not
from sim.planted import PLANTED, log_space_used_before_it_is_listed, slots_freed_under_their_readers
from sim.planted_vacuum import pending_writes_overruled_by_a_move, slots_punched_that_others_may_get

pytestmark = [
    pytest.mark.one_interpreter,
    # A planted bug may leave a store or ring that cannot be closed any more.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def leftovers_are_collected_here():
    yield
    gc.collect()


#: Few lives meet these: a hunt begins a little before a seed that does.
FIRST_SEED = {
    slots_freed_under_their_readers: 62,
    log_space_used_before_it_is_listed: 29,
    pending_writes_overruled_by_a_move: 44,
    slots_punched_that_others_may_get: 72,
}


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_is_found(bug, capsys):
    if reason := why_not(PLANTED[bug]):
        pytest.skip(reason)
    with bug():
        catch = hunt_for(PLANTED[bug], first=FIRST_SEED.get(bug, 0))
    assert catch is not None, f"{bug.__name__} lives: nothing in {PLANTED[bug]} has found it"
    with capsys.disabled():
        print(f"\n{bug.__name__}: {catch}", end=" ")


@pytest.mark.parametrize("number", range(20))
def test_cancelled_callers_may_use_their_buffers(number):
    cancelling_life(seeds.first() + number)
