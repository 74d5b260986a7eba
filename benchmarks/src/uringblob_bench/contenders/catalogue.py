"""Every subject by the name that the command line knows it under; peers in the order of the tables."""

from __future__ import annotations

from collections.abc import Callable

from uringblob_bench.load import Params
from uringblob_bench.place import Place
from uringblob_bench.subjects.aiofiles_peer import AioFiles
from uringblob_bench.subjects.base import Subject
from uringblob_bench.subjects.caio_peer import Caio
from uringblob_bench.subjects.fio import Fio
from uringblob_bench.subjects.lmdb_peer import Lmdb
from uringblob_bench.subjects.obstore_peer import ObStore
from uringblob_bench.subjects.os_calls import OsCalls
from uringblob_bench.subjects.ring import BareRing
from uringblob_bench.subjects.rocksdict_peer import RocksDict
from uringblob_bench.subjects.sqlite_peer import Sqlite
from uringblob_bench.subjects.store import AsyncStore, SyncStore
from uringblob_bench.subjects.thread_pool import ThreadPool

Maker = Callable[[Params, Place], Subject]

PEERS: dict[str, Maker] = {
    "pool": ThreadPool,
    "caio": lambda params, place: Caio(params, place, sqpoll=False),
    "caio-sqpoll": lambda params, place: Caio(params, place, sqpoll=True),
    "aiofiles": AioFiles,
    "obstore": ObStore,
    "lmdb": Lmdb,
    "rocksdict": RocksDict,
    "sqlite": Sqlite,
}
SUBJECTS: dict[str, Maker] = {
    "store": AsyncStore,
    "store-pread": lambda params, place: AsyncStore(params, place, "pread"),
    "store-sync": SyncStore,
    "ring": BareRing,
    "fio": Fio,
    "os": OsCalls,
    **PEERS,
}


def peers(params: Params, place: Place) -> list[Subject]:
    """Return one of each peer; which of them can run here shows when they prepare."""
    return [make(params, place) for make in PEERS.values()]
