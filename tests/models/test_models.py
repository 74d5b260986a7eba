"""The public API against a simple model: both faces, every engine, with reopen, death, crash and fault as rules."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from models.drivers import DRIVERS
from models.machine import StoreMachine
from sim.lives import small_log

pytestmark = pytest.mark.one_interpreter

EXAMPLES = int(os.environ.get("URINGBLOB_MODEL_EXAMPLES", "0"))
#: Where a call costs microseconds many histories are tried, where it costs a disk's flush few.
OF_KIND = {"simulated": 150, "memory sync": 15, "memory async": 15}
STEPS = 30


def run(name, root, examples, *, first=None):
    """Try so many histories; ``first`` is a seed, which makes them the same each time."""

    class Machine(StoreMachine):
        def make_driver(self, disk_seed):
            return DRIVERS[name](root, disk_seed)

    # Shrinking runs a history a hundred times: at a disk's pace that is no help.
    phases = (Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if name == "simulated" else []))
    bounds = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        phases=phases,
        **({} if first is None else {"database": None}),
    )
    if first is not None:
        Machine = seed(first)(Machine)  # noqa: N806 - it is one
    with small_log():
        run_state_machine_as_test(Machine, settings=bounds)


@pytest.mark.parametrize("name", DRIVERS)
def test_against_the_model(name, disk_root, uring_missing):
    if name.startswith("io_uring") and uring_missing:
        pytest.skip(uring_missing)
    run(name, disk_root, EXAMPLES or OF_KIND.get(name, 8))
