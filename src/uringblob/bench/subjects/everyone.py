"""Every peer, in the order of the tables."""

from __future__ import annotations

from uringblob.bench.load import Params
from uringblob.bench.place import Place
from uringblob.bench.subjects.aiofiles_peer import AioFiles
from uringblob.bench.subjects.base import Subject
from uringblob.bench.subjects.caio_peer import Caio
from uringblob.bench.subjects.lmdb_peer import Lmdb
from uringblob.bench.subjects.obstore_peer import ObStore
from uringblob.bench.subjects.rocksdict_peer import RocksDict
from uringblob.bench.subjects.sqlite_peer import Sqlite
from uringblob.bench.subjects.thread_pool import ThreadPool


def peers(params: Params, place: Place) -> list[Subject]:
    """Return one of each; which of them can run here shows when they prepare."""
    return [
        ThreadPool(params, place),
        Caio(params, place, sqpoll=False),
        Caio(params, place, sqpoll=True),
        AioFiles(params, place),
        ObStore(params, place),
        Lmdb(params, place),
        RocksDict(params, place),
        Sqlite(params, place),
    ]
