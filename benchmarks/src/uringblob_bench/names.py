"""The names that the command line knows, without what they stand for: ``uringblob --help`` loads no peer."""

from __future__ import annotations

#: The keys of :data:`uringblob_bench.contenders.catalogue.CONTENDERS`.
CONTENDER_NAMES = (
    "store",
    "store-pread",
    "store-sync",
    "ring",
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
#: Who takes part where nobody is named.
DEFAULT_CONTENDERS = "store,ring,fio,pool"
#: The keys of :data:`uringblob_bench.adhoc.WORKLOADS`.
WORKLOADS = ("read", "write", "batch", "commit", "commits", "mixed", "stall")
#: The keys of :data:`uringblob_bench.contenders.ring_sync.STRATEGIES`.
SYNCS = ("two-phase", "gathered", "linked", "drained", "RWF_DSYNC")
