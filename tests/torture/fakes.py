"""Rows for the tests of the runner."""

from __future__ import annotations

import os
import signal
import threading

from torture.rows import Lot, row


@row(91, "a row that ends", unit="things", ci="every thing", release="every thing", lots=2)
def finite(lot: Lot):
    for _ in lot.mine(range(10)):
        yield {"things": 1}


@row(92, "a row that does not", unit="things", ci="1", release=1)
def endless(lot: Lot):
    for _ in lot.seeds():
        yield {"things": 1}


@row(93, "a row that fails", unit="things", ci="1", release=1, lots=2)
def failing(lot: Lot):
    for index, _seed in enumerate(lot.seeds()):
        assert (lot.shard, index) != (1, 3), "step 3 of lot 1"
        yield {"things": 1}
        if lot.shard == 0 and index == 3:
            return


@row(94, "a row that says how to replay it", unit="things", ci="1", release=1)
def self_telling(lot: Lot):
    yield {"things": 1}
    raise AssertionError("it broke\nreplay: everything")


@row(95, "a row that dies", unit="things", ci="1", release=1)
def dying(lot: Lot):
    yield {"things": 1}
    os.kill(os.getpid(), signal.SIGKILL)


@row(96, "a row that hangs", unit="things", ci="1", release=1)
def hanging(lot: Lot):
    yield {"things": 1}
    threading.Event().wait()


@row(97, "a row that cannot run", unit="things", ci="1", release=1, needs=lambda: "no such machine")
def absent(lot: Lot):
    yield {"things": 1}
