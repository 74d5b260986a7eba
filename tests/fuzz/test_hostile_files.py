"""Row 11: 20,000 mutated store files are opened, listed, read and verified (tests/fuzz/mutator.py)."""

from __future__ import annotations

import dataclasses

import pytest

import seeds
from fuzz.attack import attack, mutants
from fuzz.real import on_a_real_file
from sim.settings import MUTATION_CHUNKS, MUTATIONS
from uringblob import FileBlobStore, StoreCorrupt
from uringblob.store.format import BLOCK_SIZE, SUPERBLOCK_OFFSETS, decode_superblock

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.unobserved("the monitor believes headers, as the format page allows; here they lie"),
]

CHUNK = MUTATIONS // MUTATION_CHUNKS


@pytest.mark.parametrize("chunk", range(MUTATION_CHUNKS))
def test_a_named_error_or_a_store_that_works(chunk, count_row):
    outcomes = attack(seeds.first() + chunk, CHUNK)
    count_row(11, mutations=outcomes.total(), **{"stores that opened": outcomes["opened"]})
    assert outcomes.total() == CHUNK
    # The mutator gets past the door, and does not always: else it would test nothing.
    assert outcomes["opened"] > CHUNK // 20, outcomes
    assert outcomes["StoreCorrupt"] > CHUNK // 20, outcomes


@pytest.mark.parametrize("chunk", range(6))
def test_the_same_on_real_files_with_each_engine(chunk, store_path, engine, count_row):
    opened = 0
    for image, deeds in mutants(seeds.first() + 1000 + chunk, 40):
        outcome = on_a_real_file(image, store_path, engine, deeds)
        opened += outcome == "opened"
    count_row(11, **{"mutations on real files": 40, "real stores that opened": opened})
    assert opened


@pytest.mark.parametrize("field", ["revision", "floor"])
def test_a_number_that_cannot_be_counted_up_is_refused(field, store_path):
    """Found by mutant 893 of seed 123: revision 2**64 - 1 opened, and could not be written again."""
    FileBlobStore.open(store_path, page_size=4096).close()
    with open(store_path, "r+b") as file:
        for offset in SUPERBLOCK_OFFSETS:
            file.seek(offset)
            superblock = decode_superblock(file.read(BLOCK_SIZE), offset)
            file.seek(offset)
            file.write(dataclasses.replace(superblock, **{field: (1 << 64) - 1}).encode(offset))
    with pytest.raises(StoreCorrupt, match="impossible values"):
        FileBlobStore.open(store_path)
