"""How long the file is, against how often everything in it was overwritten."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import Bench
from uringblob_bench.contenders.overwritten import Overwritten
from uringblob_bench.interleave import Case, Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.sweeps.base import Sweep

SPACE = "space by overwrites"
#: Frame size, and how many frames are live, where the files may be as long as that.
STORES = ((4 << 10, 20_000), (4 << 10, 1_000), (64 << 10, 500))
#: Times that each frame was overwritten, on average.
TIMES = (0.25, 0.5, 1, 2, 4)
_TURN = Load(Verb.COMMIT)


def contenders(bench: Bench) -> list[Overwritten]:
    """Return a contender for each store; small files hold fewer frames, and then two stores may be one."""
    found = {}
    for page_size, most in STORES:
        params = dataclasses.replace(bench.params, page_size=page_size)
        contender = Overwritten(params, bench.workdir, min(most, params.live))
        found[contender.name] = contender
    return list(found.values())


def by_overwrites(bench: Bench) -> list[Case]:
    """Overwrite each store further from point to point; what was run before is not run again."""
    stores, cases = contenders(bench), []
    for times in bench.points(TIMES):
        for store in stores:
            store.target = times
        entries = [Entry(store, (_TURN,)) for store in stores]
        case = bench.case(f"{SPACE}: {times}", entries, rounds=1)
        case.sweep, case.at = SPACE, times
        cases.append(case)
    return cases


def space(bench: Bench) -> None:
    """Run the sweep."""
    by_overwrites(bench)


SWEEPS = [Sweep("space", "the file's length by overwrites", space, len(STORES) * len(TIMES))]
