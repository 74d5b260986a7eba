"""Throughput, latency and CPU against queue depth and against frame size."""

from __future__ import annotations

import dataclasses

from uringblob_bench.alternate import Entry
from uringblob_bench.bench import Bench
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.subjects.base import Subject
from uringblob_bench.subjects.fio import Fio
from uringblob_bench.subjects.ring import BareRing
from uringblob_bench.subjects.store import AsyncStore
from uringblob_bench.subjects.thread_pool import ThreadPool
from uringblob_bench.sweeps.base import Sweep

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
PAGE_SIZES = (4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
#: So many frames at most: a file of small ones need not be as long.
_FRAMES_MAX = 8192
READS, WRITES, PAGES = "reads by depth", "writes by depth", "reads by frame size"


def _parties(bench: Bench, params: Params) -> list[Subject]:
    place = bench.place
    return [Fio(params, place), BareRing(params, place), AsyncStore(params, place), ThreadPool(params, place)]


def by_depth(bench: Bench, sweep: str, verb: Verb) -> None:
    """Serve one frame per call, ``depth`` calls at once."""
    for depth in bench.points(DEPTHS):
        load = Load(verb, depth)
        bench.point(sweep, depth, [Entry(party, (load,)) for party in _parties(bench, bench.params)])


def reads(bench: Bench) -> None:
    """Random reads."""
    by_depth(bench, READS, Verb.READ)


def writes(bench: Bench) -> None:
    """Random writes, not synced."""
    by_depth(bench, WRITES, Verb.WRITE)


def page_sizes(bench: Bench) -> None:
    """Random reads at depth 32 of frames from 4 KiB to 1 MiB."""
    load = Load(Verb.READ, 32)
    for page_size in bench.points(PAGE_SIZES):
        file_bytes = min(bench.params.file_bytes, _FRAMES_MAX * page_size)
        params = dataclasses.replace(bench.params, page_size=page_size, file_bytes=file_bytes)
        bench.point(PAGES, page_size, [Entry(party, (load,)) for party in _parties(bench, params)], params)


SWEEPS = [
    Sweep("depth-reads", READS, reads, 4 * len(DEPTHS)),
    Sweep("depth-writes", WRITES, writes, 4 * len(DEPTHS)),
    Sweep("frame-size", PAGES, page_sizes, 4 * len(PAGE_SIZES)),
]
