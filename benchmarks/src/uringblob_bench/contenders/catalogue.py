"""Every contender by the name that the command line knows it under; peers in the order of the tables."""

from __future__ import annotations

from collections.abc import Callable

from uringblob_bench.contenders.aiofiles_peer import AioFiles
from uringblob_bench.contenders.base import Contender
from uringblob_bench.contenders.caio_peer import Caio
from uringblob_bench.contenders.callbacks import BareCallbacks
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.lmdb_peer import Lmdb
from uringblob_bench.contenders.obstore_peer import ObStore
from uringblob_bench.contenders.os_calls import OsCalls
from uringblob_bench.contenders.ring import BareRing
from uringblob_bench.contenders.rocksdict_peer import RocksDict
from uringblob_bench.contenders.sqlite_peer import Sqlite
from uringblob_bench.contenders.store import AsyncStore, SyncStore
from uringblob_bench.contenders.thread_pool import ThreadPool
from uringblob_bench.load import Params
from uringblob_bench.workdir import WorkDir

Maker = Callable[[Params, WorkDir], Contender]

PEERS: dict[str, Maker] = {
    "pool": ThreadPool,
    "caio": lambda params, workdir: Caio(params, workdir, sqpoll=False),
    "caio-sqpoll": lambda params, workdir: Caio(params, workdir, sqpoll=True),
    "aiofiles": AioFiles,
    "obstore": ObStore,
    "lmdb": Lmdb,
    "rocksdict": RocksDict,
    "sqlite": Sqlite,
}
CONTENDERS: dict[str, Maker] = {
    "store": AsyncStore,
    "store-pread": lambda params, workdir: AsyncStore(params, workdir, "pread"),
    "store-sync": SyncStore,
    "ring": BareRing,
    "bare-asyncio": BareAsyncio,
    "bare-callbacks": BareCallbacks,
    "fio": Fio,
    "os": OsCalls,
    **PEERS,
}


def every_peer(params: Params, workdir: WorkDir) -> list[Contender]:
    """Return one of each peer; which of them can run here shows when they prepare."""
    return [make(params, workdir) for make in PEERS.values()]
