"""A store with one good superblock, whose file claims a TiB: log space is searched, and its holes are not read.

Found by mutant 388 of seed 628260000030: it claimed 137 GB of log space, and opening read all of it.
"""

from __future__ import annotations

import dataclasses
import errno
import os

import pytest

from uringblob import BlobGuid, FileBlobStore, StoreCorrupt
from uringblob.store.format import (
    BLOCK_SIZE,
    SUPERBLOCK_OFFSETS,
    BlockType,
    SlotRun,
    decode_block,
    decode_superblock,
    encode_block,
    link_record,
)

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.unobserved("the monitor believes headers, as the format page allows; here they lie"),
]

PAGE = 1 << 20
FILE_BYTES = 1 << 40
#: Requests of opening this store: far fewer than the four million reads that the file's length is.
READS_MAX = 30


class SparseStore:
    """A store whose log space goes on to the end of a sparse file, and whose second superblock is ruined."""

    def __init__(self, path: str) -> None:
        with FileBlobStore.open(path, page_size=PAGE) as store:
            store.commit([(BlobGuid.of("a blob"), bytes(PAGE))])
        self.path = path
        end = os.path.getsize(path) // PAGE
        #: The log space that the file only claims.
        self.far = SlotRun(end, FILE_BYTES // PAGE - end)
        self._lengthen()
        superblock = decode_superblock(self.read(0), 0)
        self.super = dataclasses.replace(superblock, log_space=(*superblock.log_space, self.far))
        self.write(0, self.super.encode(0))
        self.write(SUPERBLOCK_OFFSETS[1], b"x" * BLOCK_SIZE)

    def _lengthen(self) -> None:
        try:
            os.truncate(self.path, FILE_BYTES)
        except OSError as error:
            if error.errno not in (errno.EFBIG, errno.ENOSPC):
                raise
            pytest.skip(f"this file system has no file of {FILE_BYTES} bytes")
        with open(self.path, "rb") as file:
            try:
                os.lseek(file.fileno(), self.far.slot * PAGE, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            else:
                pytest.skip("this file system does not tell holes")

    def read(self, offset: int) -> bytes:
        with open(self.path, "rb") as file:
            return os.pread(file.fileno(), BLOCK_SIZE, offset)

    def write(self, offset: int, block: bytes) -> None:
        with open(self.path, "r+b") as file:
            os.pwrite(file.fileno(), block, offset)

    def write_block(self, offset: int, **fields) -> None:
        """Write a sound log block."""
        self.write(offset, encode_block(self.super.store_id, offset, page_size=PAGE, **fields))

    def reads_of_opening(self, engine: str) -> int:
        with FileBlobStore.open(self.path, engine=engine, read_only=True) as store:
            assert store.list_blobs() == [BlobGuid.of("a blob")]
            return store.stats().reads


@pytest.fixture
def sparse(store_path):
    return SparseStore(store_path)


def test_holes_in_log_space_are_not_read(sparse, engine):
    assert sparse.reads_of_opening(engine) <= READS_MAX


def test_holes_in_the_last_segment_are_not_read(sparse, engine):
    offset = sparse.super.head.slot * PAGE
    header = decode_block(sparse.super.store_id, offset, sparse.read(offset))
    index, slots, _, _ = header.link()
    link = link_record(index, slots, sparse.far.slot, sparse.far.slots)
    sparse.write_block(
        offset, log_id=sparse.super.log_id, block_type=BlockType.SEGMENT, seq=0, records=[link]
    )
    assert sparse.reads_of_opening(engine) <= READS_MAX


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["first block", "in the middle", "last block"])
def test_a_newer_log_among_holes_is_found(sparse, engine, part):
    blocks = sparse.far.slots * PAGE // BLOCK_SIZE
    offset = sparse.far.slot * PAGE + int(part * (blocks - 1)) * BLOCK_SIZE
    sparse.write_block(offset, log_id=sparse.super.log_id + 1, block_type=BlockType.GROUP, seq=1000)
    with pytest.raises(StoreCorrupt, match=f"the other one is out of date.*group 1000.*offset {offset}"):
        sparse.reads_of_opening(engine)
