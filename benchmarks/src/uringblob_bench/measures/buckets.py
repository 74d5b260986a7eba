"""The store in a bucket against bare obstore with as many requests in flight (20)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import Bench, against
from uringblob_bench.contenders import s3_server
from uringblob_bench.contenders.buckets import BareObstore, RemoteStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import MIB, Load, Verb
from uringblob_bench.measures.base import Measure
from uringblob_bench.media import MEMORY

IN_FLIGHT = 64
TARGET = 0.9
LOADS = {
    f"put batches of {IN_FLIGHT} into a bucket": Load(Verb.COMMIT, 1, IN_FLIGHT),
    f"get {IN_FLIGHT} at once from a bucket": Load(Verb.READ, IN_FLIGHT),
}


def in_a_bucket(bench: Bench) -> list[Finding]:
    """Measure 20: one server on loopback, its objects in memory."""
    if bench.medium == MEMORY:
        return []  # no file is touched: it was measured with the directory
    params = dataclasses.replace(bench.params, file_bytes=min(bench.params.file_bytes, 512 * MIB))
    with s3_server.running() as endpoint:
        contenders = [kind(params, bench.workdir, endpoint) for kind in (RemoteStore, BareObstore)]
        return [
            found
            for what, load in LOADS.items()
            for found in against(
                what,
                bench.case(what, [Entry(contender, (load,)) for contender in contenders], params),
                RemoteStore.name,
                {BareObstore.name: TARGET},
            )
        ]


MEASURES = [
    Measure(20, "buckets", "the store in a bucket against bare obstore", in_a_bucket, turns=4, fixed_s=10),
]
