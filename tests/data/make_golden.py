"""Makes the golden store of this release; run once per released format, by hand::

    python tests/data/make_golden.py 0.2

``golden-0.2.blobs.xz`` is a store file, ``golden-0.2.json`` what it must hold; from 0.2 on there is one with
frames of 12 KiB, too, and blobs have metadata.  Its contents do
not depend on chance, but its ids do: a second run makes another file with the same contents.
So a golden file is never made again; a later release adds its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import lzma
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

LABEL = "golden: Größe"

#: For each frame size so many blobs that the log needs more space than a new store has, and another extent.
MANY = {4096: 3600, 12288: 3200}


def frame(number: int, version: int, page_size: int) -> bytes:
    """Return a frame that compresses well and is like no other."""
    head = f"blob {number}, version {version}. ".encode()
    return head + bytes([number % 251, version]) * ((page_size - len(head)) // 2) + b"." * (len(head) % 2)


def meta(number: int, version: int) -> bytes:
    """Return a blob's metadata: none, little, and as much as there can be."""
    return bytes([number % 251]) * (0, 0, version, 31, 32, 33, 0, 255)[number % 8]


def guid(number: int) -> bytes:
    """Return a guid as random as a user's; number 0 is the all-zero guid."""
    return hashlib.sha256(b"golden %d" % number).digest()[:16] if number else bytes(16)


async def write_history(path: Path, page_size: int) -> tuple[dict[int, int], Path]:
    """Write a store at ``path``; return what it holds, and a copy as a crash would leave it."""
    from uringblob import AsyncFileBlobStore

    many = MANY[page_size]
    holds: dict[int, int] = {}

    async def commit(numbers: range, version: int, deletes: range = range(0)) -> None:
        writes = [(guid(n), frame(n, version, page_size), meta(n, version)) for n in numbers]
        await store.commit(writes, deletes=[guid(n) for n in deletes])
        holds.update(dict.fromkeys(numbers, version))
        for number in deletes:
            holds.pop(number, None)

    async with AsyncFileBlobStore.open(path, page_size=page_size, engine="pread", label=LABEL) as store:
        await commit(range(150), 1)  # a group of two blocks
        for number in range(20):
            await commit(range(number, number + 3), 2, deletes=range(100 + number, 101 + number))
        await commit(range(1000, 1000 + many), 1)
        # Groups of several blocks, and a file that is mostly free slots.
        for first in range(1000, 1000 + many, 900):
            await commit(range(0), 1, deletes=range(first, min(first + 900, 1000 + many)))
        await store._core.maintenance.start_compaction()
        for number in range(200):  # more than a segment of groups, so that the chain has grown
            await commit(range(number % 100, number % 100 + 2), 3)
        assert len(store._core.superblocks.current.log_space) > 1, "the list has one extent only"
        assert store._core.maintenance.compactions == 1
        assert len(store._core.log.segments) > 2, "the chain has not grown"
        await store.write_blobs([(guid(n), frame(n, 4, page_size), meta(n, 4)) for n in range(140, 160)])
        await store.delete_blob(guid(0))
        await store.flush()
        holds.update(dict.fromkeys(range(140, 160), 4))
        del holds[0]
        await commit(range(0), 5, deletes=range(90, 95))
        killed = path.with_suffix(".killed")
        shutil.copyfile(path, killed)
    return dict(sorted(holds.items())), killed


def main(name: str, page_size: int) -> None:
    """Write the golden files of this ``name``."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store"
        holds, killed = asyncio.run(write_history(path, page_size))
        for source, file in [(path, name), (killed, f"{name}-killed")]:
            target = HERE / f"{file}.blobs.xz"
            if target.exists():
                sys.exit(f"{target} is golden: a release's file is made once")
            target.write_bytes(lzma.compress(source.read_bytes(), preset=9))
    listing = {
        "page_size": page_size,
        "label": LABEL,
        "sha256": {
            guid(n).hex(): hashlib.sha256(frame(n, v, page_size)).hexdigest() for n, v in holds.items()
        },
        "meta": {guid(n).hex(): meta(n, v).hex() for n, v in holds.items() if meta(n, v)},
    }
    (HERE / f"{name}.json").write_text(json.dumps(listing, indent=1) + "\n")


if __name__ == "__main__":
    main(f"golden-{sys.argv[1]}", 4096)
    main(f"golden-{sys.argv[1]}-12k", 12288)
