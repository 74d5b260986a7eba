"""Row 22: vacuums beside writes and snapshots, with power cuts, and with each request failing."""

from __future__ import annotations

import itertools

from sim.power_cuts import torture
from sim.rig import life_with_fault
from sim.vacuums import VacuumLife, vacuum_options
from torture.rows import Lot, row


@row(
    22,
    "vacuums under writes and snapshots, power cut at every step, or a request failing",
    unit="disk images",
    ci="a few lives",
    release=100_000,
    share=2,
    lots=2,
)
def vacuums(lot: Lot):
    for seed in lot.seeds():
        yield torture(seed, kind=VacuumLife, **vacuum_options(seed))
        for name in ("EIO", "ENOSPC"):
            yield {"requests that failed": _each_fails(seed, name)}


def _each_fails(seed: int, name: str) -> int:
    for index in itertools.count():
        life = life_with_fault(
            seed, name, index, forever=seed % 2 == 0, used=True, kind=VacuumLife, calls=6, guids=8
        )
        if life is None:
            return index
    raise AssertionError
