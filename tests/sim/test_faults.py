"""The n-th request fails, for every n, once and from then on (rows 5 and 6 of the faults)."""

from __future__ import annotations

import itertools

import pytest

from sim.rig import FAULTS, PAGE, Moment, life_with_fault, lives, open_with_fault
from sim.settings import FAULT_SEEDS
from uringblob.errors import StorePoisoned

pytestmark = pytest.mark.one_interpreter

EVERY = pytest.mark.parametrize(
    ("name", "forever"),
    list(itertools.product(FAULTS, (False, True))),
    ids=lambda v: {0: "once", 1: "on"}.get(v, v),
)


def sweep(live) -> int:
    """Call ``live(index)`` for every index until it says that there is no such request."""
    for index in itertools.count():
        if not live(index):
            return index
    raise AssertionError


@EVERY
def test_in_a_life(name, forever):
    """The call raises, the store goes on or is poisoned as the contract says, and reopening is clean."""
    for seed in range(FAULT_SEEDS):
        requests = sweep(
            lambda index, seed=seed: life_with_fault(seed, name, index, forever=forever, calls=14)
        )
        assert requests > 10


@EVERY
def test_on_a_full_disk(name, forever):
    """The same where there is hardly any room."""
    requests = sweep(
        lambda index: life_with_fault(77, name, index, forever=forever, calls=10, capacity=70 * PAGE)
    )
    assert requests > 10


@EVERY
def test_while_opening(name, forever):
    """Opening raises an I/O error or is as if nothing had happened, and the next opening is."""
    for life in lives(5, 2):
        life.run()
        moments = [m for m in life.moments if m.why == "write"][:: max(1, len(life.moments) // 4)]
        for moment in [*moments, Moment(life.disk.live, life.history.knowledge(), "closed")]:
            sweep(lambda index, moment=moment: open_with_fault(moment, name, index, forever=forever))


@pytest.mark.parametrize("seed", range(max(3, FAULT_SEEDS)))
def test_a_failed_fsync_poisons_and_no_other_is_asked_for(seed):
    """Whatever the errno; later successes are not believed, and nobody asks for them."""
    for name in ("EIO", "ENOSPC", "EINTR"):
        for index in itertools.count():
            life = life_with_fault(
                seed, name, index, forever=False, kinds=("sync",), calls=20, tasks=3, compactions=0.1
            )
            if life is None:
                break
            assert any(
                isinstance(error, StorePoisoned) or error.applied is None for error in life.errors
            ) or (not life.errors)
