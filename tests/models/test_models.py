"""The public API against a simple model: both faces, every engine, with reopen, death, crash and fault as rules."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import rule, run_state_machine_as_test

import seeds
from models.drivers import DRIVERS
from models.machine import StoreMachine
from sim.lives import small_log

pytestmark = pytest.mark.one_interpreter

EXAMPLES = int(os.environ.get("URINGBLOB_MODEL_EXAMPLES", "0"))
#: Where a call costs microseconds many histories are tried, where it costs a disk's flush few.
OF_KIND = {"simulated": 150, "memory sync": 15, "memory async": 15}
STEPS = 30
#: Hypothesis may take five minutes for it, which is when the runner ends the worker and nobody sees the example.
SHRINK_SECONDS = 45


def run(name, root, examples, *, first):
    """Try so many histories; ``first`` is a seed, which makes them the same each time."""

    class Machine(StoreMachine):
        def make_driver(self, disk_seed):
            return DRIVERS[name](root, disk_seed)

    # Shrinking runs a history hundreds of times: at a disk's pace that is no help.
    try_machine(Machine, examples, first=first, shrink_s=SHRINK_SECONDS if name == "simulated" else None)


def try_machine(machine, examples, *, first, shrink_s):
    """Run histories of ``machine``; what fails is made smaller for ``shrink_s`` seconds, if at all."""
    shrink = shrink_s is not None and hasattr(
        engine, "MAX_SHRINKING_SECONDS"
    )  # a name of hypothesis's own, which may go
    bounds = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])),
        database=None,
        print_blob=False,  # the seed replays it
    )
    with small_log(), pytest.MonkeyPatch.context() as patch:
        if shrink:
            patch.setattr(engine, "MAX_SHRINKING_SECONDS", shrink_s)
        run_state_machine_as_test(seed(first)(machine), settings=bounds)


@pytest.mark.parametrize("name", DRIVERS)
def test_against_the_model(name, disk_root, uring_missing):
    if name.startswith("io_uring") and uring_missing:
        pytest.skip(uring_missing)
    run(name, disk_root, EXAMPLES or OF_KIND.get(name, 8), first=seeds.first())


def test_shrinking_ends_by_the_clock_and_shows_an_example(disk_root):
    """Without the bound the runner's own clock would end the worker, and nobody would see the example."""
    lives = []

    class Machine(StoreMachine):
        def make_driver(self, disk_seed):
            lives.append(disk_seed)
            return DRIVERS["simulated"](disk_root, disk_seed)

        @rule(stamp=st.integers(0, 1 << 30))
        def fails(self, stamp):
            assert stamp < 1000, "planted"

    with pytest.raises(AssertionError, match="planted") as failed:
        try_machine(Machine, 50, first=1, shrink_s=-1.0)
    assert any("fails(stamp=" in note for note in failed.value.__notes__)
    bounded = len(lives)
    with pytest.raises(AssertionError, match="planted"):
        try_machine(Machine, 50, first=1, shrink_s=20.0)
    assert bounded < (len(lives) - bounded) / 2, "the clock ended it"
