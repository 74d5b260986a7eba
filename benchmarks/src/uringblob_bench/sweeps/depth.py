"""Throughput, latency and CPU against queue depth and against frame size."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import Bench
from uringblob_bench.contenders.base import Contender
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.ring import BareRing
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.contenders.thread_pool import ThreadPool
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.sweeps.base import Sweep

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
PAGE_SIZES = (4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
#: So many frames at most: a file of small ones need not be as long.
_FRAMES_MAX = 8192
READS, WRITES, PAGES = "reads by depth", "writes by depth", "reads by frame size"


def _contenders(bench: Bench, params: Params) -> list[Contender]:
    workdir = bench.workdir
    return [
        Fio(params, workdir),
        BareRing(params, workdir),
        AsyncStore(params, workdir),
        ThreadPool(params, workdir),
    ]


def by_depth(bench: Bench, sweep: str, verb: Verb) -> None:
    """Serve one frame per call, ``depth`` calls at once."""
    for depth in bench.points(DEPTHS):
        load = Load(verb, depth)
        bench.point(
            sweep, depth, [Entry(contender, (load,)) for contender in _contenders(bench, bench.params)]
        )


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
        bench.point(
            PAGES, page_size, [Entry(contender, (load,)) for contender in _contenders(bench, params)], params
        )


SWEEPS = [
    Sweep("depth-reads", READS, reads, 4 * len(DEPTHS)),
    Sweep("depth-writes", WRITES, writes, 4 * len(DEPTHS)),
    Sweep("frame-size", PAGES, page_sizes, 4 * len(PAGE_SIZES)),
]
