"""Rows 5, 6 and 15 on the real engines: every request fails, in longer lives; a kernel in a bad mood."""

from __future__ import annotations

import asyncio
import itertools
import os

from conftest import why_no_uring
from faults.disk import FaultyDisk
from faults.life import FAULTY, live_with, make_template
from faults.test_busy_kernel import weather
from faults.test_every_request import check_outcome
from sim.rig import FAULTS, Failing
from torture.rows import Lot, row

ENGINES = ["io_uring", "pread"]


@row(
    5,
    "an error, or a short count, at the n-th request of a real engine",
    unit="lives",
    ci="every index",
    release="every index",
)
def every_request(lot: Lot):
    yield from _sweep(lot, itertools.product(_engines(), FAULTS, (False, True)), {})


@row(6, "fsync fails on a real engine", unit="lives", ci="every index", release="every index")
def every_sync(lot: Lot):
    names = [name for name, fault in FAULTS.items() if fault.errno]
    yield from _sweep(lot, itertools.product(_engines(), names, (False, True)), {"kinds": ("sync",)})


def _engines():
    return [engine for engine in ENGINES if engine == "pread" or not why_no_uring()]


def _sweep(lot, cases, options):
    template, path = str(lot.directory / "template"), str(lot.directory / "store")
    make_template(template)
    for engine, name, forever in lot.mine(cases):
        for index in itertools.count():
            failing = Failing(index, FAULTS[name], forever=forever, **options)
            assert engine in FAULTY
            life = asyncio.run(live_with(path, template, engine, FaultyDisk(index), failing, days=3))
            if not failing.struck:
                break
            check_outcome(name, failing, life)
            yield {"lives": 1}


@row(
    15,
    "full queues, EAGAIN, EBUSY, EINTR from enter",
    unit="times each branch",
    ci="100",
    release=1_000,
    needs=why_no_uring,
)
def moods(lot: Lot):
    for seed in lot.seeds():
        path = str(lot.directory / f"store-{seed}")
        asyncio.run(weather(path, seed, forced=100))
        os.unlink(path)
        yield {"times each branch": 100}
