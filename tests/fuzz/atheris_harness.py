"""A coverage-guided fuzzer over the same judge: ``python tests/fuzz/atheris_harness.py CORPUS -max_total_time=60``.

Needs the extra ``[torture]`` (atheris).  The invariant: whatever the bytes, opening, listing,
reading and verifying end in a named error or in a store that works.  Checksums are made right
before the store sees the bytes, or no mutation would get past them.
"""

from __future__ import annotations

import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import atheris

with atheris.instrument_imports(include=["uringblob.store"]):
    import uringblob.store.async_store  # noqa: F401 - instrumented

import xxhash

from fuzz.hostile import judge, victims_log
from uringblob.store.format import BLOCK_SIZE, SUPERBLOCK_OFFSETS
from uringblob.testing.sim.image import Image

_MARK = b"ublk"
_FIELD = 32  # where a log block has its checksum


def sealed(data: bytes) -> Image:
    """Return the image of ``data`` with every superblock's and log block's checksum made right."""
    image = Image(size=len(data))
    image.write(0, data)
    store_id = image.read(16, 16).ljust(16, b"\0")
    for offset in range(0, len(data) - BLOCK_SIZE + 1, BLOCK_SIZE):
        block = bytearray(data[offset : offset + BLOCK_SIZE])
        if offset in SUPERBLOCK_OFFSETS:
            block[-8:] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(block[:-8])))
        elif block[:4] == _MARK:
            struct.pack_into("<Q", block, _FIELD, 0)
            digest = xxhash.xxh3_64(struct.pack("<16sQ", store_id, offset))
            digest.update(bytes(block))
            struct.pack_into("<Q", block, _FIELD, digest.intdigest())
        image.write(offset, bytes(block))
    return image


def test_one_input(data: bytes) -> None:
    """Judge one input, writable or read-only by its length."""
    judge(sealed(data), read_only=len(data) % 2 == 1, deep=len(data) % 4 == 0)


if __name__ == "__main__":
    with victims_log():
        atheris.Setup(sys.argv, test_one_input)
        atheris.Fuzz()
