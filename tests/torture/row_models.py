"""Beside the table: the public API against a model, in histories that the suite has not seen."""

from __future__ import annotations

from models.drivers import DRIVERS
from models.test_models import run
from torture.rows import Lot, row

EXAMPLES_A_STEP = 5


@row(
    0,
    "the public API against a model: random calls, faults, reopenings, deaths and power cuts",
    unit="histories",
    ci="150 simulated, 15 or 8 of each other kind",
    release=10_000,
    share=1,
    lots=2,
)
def histories(lot: Lot):
    for seed in lot.seeds():
        # A simulated history costs least and may do most: every other step is one.
        names = [name for name in DRIVERS if name != "simulated"]
        name = "simulated" if seed % 2 else names[seed // 2 % len(names)]
        try:
            run(name, lot.directory, EXAMPLES_A_STEP, first=seed)
        except Exception as error:
            raise AssertionError(f"{name}: {error}\n" + "\n".join(getattr(error, "__notes__", ()))) from error
        yield {"histories": EXAMPLES_A_STEP}
