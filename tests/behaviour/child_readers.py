"""A writer and readers of one store, each a process that may be killed at any moment."""

from __future__ import annotations

import select
import sys

from behaviour.children import listen, tell
from behaviour.work import frame, guid
from uringblob import FileBlobStore, tuning

PAGE = 4096
TOGETHER = range(4)  #: blobs that every commit replaces together


def write(path, engine, first):
    """Commit one version after the other, from ``first`` on, with growth and compactions; say which is durable."""
    tuning.COMPACTION_BLOCKS_MIN = 16
    with FileBlobStore.open(path, engine=engine, page_size=PAGE, buffers=8, lock_timeout=30) as store:
        for version in range(first, sys.maxsize):
            more = [(guid(100 + version % 60), frame(100 + version % 60, PAGE, version))]
            meta = version.to_bytes(8, "big")
            store.commit([*((guid(n), frame(n, PAGE, version), meta) for n in TOGETHER), *more])
            if version % 8 == 0:
                store.commit(deletes=[guid(100 + (version - 24) % 60)])
            if version % 20 == 0 or version == first:
                tell(version)


def read(path, engine, moves):
    """Look at the blobs until told otherwise; if it ``moves``, refresh between.  Say what was seen, when asked."""
    with FileBlobStore.open(path, engine=engine, read_only=True, buffers=8, lock_timeout=30) as store:
        seen, looks, moved = look(store), 0, 0
        tell(seen)
        while True:
            if moves:
                moved += store.refresh()
            now = look(store)
            assert now >= seen if moves else now == seen, f"version {now} after {seen}"
            seen, looks = now, looks + 1
            if select.select([sys.stdin], [], [], 0.002)[0]:
                if listen() != "seen":
                    return [looks, moved]
                if moves:
                    store.refresh()
                seen = look(store)
                tell(seen)


def look(store):
    """Return the version of all blobs, which is one."""
    metas = {store.stat_blob(guid(number)).meta for number in TOGETHER}
    assert len(metas) == 1, f"a mix of commits: {metas}"
    version = int.from_bytes(metas.pop(), "big")
    room = bytearray(PAGE)
    for number in TOGETHER:
        store.read_blob(guid(number), room)
        assert room == frame(number, PAGE, version), f"blob {number} is not that of version {version}"
    return version
