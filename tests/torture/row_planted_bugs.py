"""The planted bugs: the hunts of the suite, from seeds that the suite has not seen."""

from __future__ import annotations

import itertools

from sim.hunts import hunt_for, why_not
from sim.planted import PLANTED
from torture.rows import Lot, row


@row(
    0,
    "planted bugs: each is found, by the rig or the order monitor",
    unit="bugs found",
    ci="every one",
    release=10 * len(PLANTED),
    share=0.5,
)
def planted_bugs(lot: Lot):
    for first in itertools.count(lot.seed, 1000):
        for bug in (bug for bug in PLANTED if not why_not(PLANTED[bug])):
            lot.at = f"{bug.__name__} first={first}"
            with bug():
                catch = hunt_for(PLANTED[bug], first=first)
            assert catch is not None, (
                f"{bug.__name__} lives: {PLANTED[bug]} from seed {first} on have not found it"
            )
            yield {"bugs found": 1, "disk images": catch.images}
