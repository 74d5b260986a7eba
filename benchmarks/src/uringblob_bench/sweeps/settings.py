"""What single settings are worth: registered buffers, huge pages, checksums, event loop, wake-up, threads."""

from __future__ import annotations

import dataclasses
from typing import Any

from uringblob_bench.bench import Bench
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.os_calls import OsCalls
from uringblob_bench.contenders.ring import BareRing
from uringblob_bench.contenders.store import AsyncStore, SyncStore
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.sweeps.base import Sweep

BUFFERS, SETTINGS, THREADS = "buffers", "settings", "threads"
BUFFER_KINDS: dict[str, dict[str, Any]] = {
    "fixed, huge pages": {"registered": True, "huge": True},
    "fixed, 4 KiB pages": {"registered": True, "huge": False},
    "plain, huge pages": {"registered": False, "huge": True},
    "plain, 4 KiB pages": {"registered": False, "huge": False},
}
THREAD_COUNTS = (1, 4, 16)
_DEPTH = 32


def buffers(bench: Bench) -> None:
    """Fixed against plain buffers, on huge pages and on small ones, at depth 32."""
    for verb in (Verb.READ, Verb.WRITE):
        load = Load(verb, _DEPTH)
        for kind, chosen in BUFFER_KINDS.items():
            params = dataclasses.replace(bench.params, **chosen)
            contenders = [contender(params, bench.workdir) for contender in (Fio, BareRing, AsyncStore)]
            entries = [Entry(contender, (load,)) for contender in contenders]
            bench.point(f"{BUFFERS}, {verb.value}", kind, entries, params)


def single_settings(bench: Bench) -> None:
    """Reads at depth 1 and 32 with one setting changed at a time."""
    ring: dict[str, dict[str, Any]] = {
        "bare ring": {},
        "bare ring, eventfd": {"wakeup": "eventfd"},
        "bare ring, uvloop": {"loop": "uvloop"},
    }
    store: dict[str, dict[str, Any]] = {
        "store": {},
        "store, uvloop": {"loop": "uvloop"},
        "store, no checksums": {"verify": False},
        "store, plain buffers": {"registered": False},
    }
    for depth in (1, _DEPTH):
        load = (Load(Verb.READ, depth),)
        entries = [
            Entry(kind(dataclasses.replace(bench.params, **changed), bench.workdir), load, name)
            for kind, variants in ((BareRing, ring), (AsyncStore, store))
            for name, changed in variants.items()
        ]
        bench.point(SETTINGS, depth, entries)


def threads(bench: Bench) -> None:
    """The synchronous face read by 1, 4 and 16 threads, beside plain calls and beside tasks."""
    for count in THREAD_COUNTS:
        load = Load(Verb.READ, count)
        contenders = [
            SyncStore(bench.params, bench.workdir),
            AsyncStore(bench.params, bench.workdir),
            OsCalls(bench.params, bench.workdir, on_store=True),
        ]
        bench.point(THREADS, count, [Entry(contender, (load,)) for contender in contenders])


SWEEPS = [
    Sweep("buffers", "fixed against plain buffers", buffers, 3 * 2 * len(BUFFER_KINDS)),
    Sweep("settings", "one setting at a time", single_settings, 14),
    Sweep("threads", "the synchronous face from 1, 4, 16 threads", threads, 3 * len(THREAD_COUNTS)),
]
