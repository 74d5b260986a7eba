"""The names on the command line, apart from their objects: ``--help`` imports no peer."""

from __future__ import annotations

#: The keys of :data:`uringblob_bench.contenders.catalogue.CONTENDERS`.
CONTENDER_NAMES = (
    "store",
    "store-pread",
    "store-sync",
    "ring",
    "bare-asyncio",
    "bare-callbacks",
    "fio",
    "os",
    "pool",
    "caio",
    "caio-sqpoll",
    "aiofiles",
    "obstore",
    "lmdb",
    "rocksdict",
    "sqlite",
)
#: The contenders where the command line names none.
DEFAULT_CONTENDERS = "store,ring,fio,pool"
#: The keys of :data:`uringblob_bench.adhoc.WORKLOADS`.
WORKLOADS = ("read", "write", "batch", "commit", "commits", "mixed", "stall")
#: The keys of :data:`uringblob_bench.contenders.ring_sync.STRATEGIES`.
SYNCS = ("two-phase", "gathered", "linked", "drained", "RWF_DSYNC")
