"""Mutations of a store's bytes, blind ones and ones that know the format, from one seed.

A mutation that only breaks checksums is refused at the door; so most of these make the checksum
right again and lie in one field: a slot, a length, a number, a type, a link.
"""

from __future__ import annotations

import random
import struct

import xxhash

from uringblob.store.format import BLOCK_SIZE, SUPERBLOCK_OFFSETS
from uringblob.testing.sim.image import Image

#: Numbers that programs get wrong.
EDGES = (0, 1, 2, 7, 8, 63, 119, 120, 127, 128, 4095, 4096, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 32)
EDGES += (1 << 52, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)

#: (offset, size) of a superblock's fields, and of a log block's: sector header, block header, a record.
SUPERBLOCK_FIELDS = (
    (0, 8),
    (8, 4),
    (12, 4),
    (16, 8),
    (32, 8),
    (40, 8),
    (48, 8),
    (56, 8),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 8),
    (112, 8),
    (176, 8),
    (184, 8),
    (256, 8),
    (264, 8),
)
SECTOR_FIELDS = ((0, 4), (4, 1), (5, 1), (6, 1), (7, 1), (8, 8), (16, 8), (24, 8))
HEADER_FIELDS = ((8, 4), (12, 4), (16, 4), (20, 4), (24, 8))
RECORD_FIELDS = ((0, 8), (8, 8), (16, 8), (23, 1), (24, 8))
RECORD_SIZE = 32


class Mutator:
    """Mutates copies of ``image``, whose log blocks begin at ``log`` (offsets)."""

    def __init__(self, image: Image, log: list[int], seed: int) -> None:
        self._image = image
        self._log = log
        self._rng = random.Random(seed)
        self._store_id = image.read(16, 16)

    def mutant(self) -> tuple[Image, list[str]]:
        """Return a mutated copy, and what was done to it."""
        rng = self._rng
        image, deeds = self._image.copy(), []
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
            deed = rng.choices(self.DEEDS, self.WEIGHTS)[0]
            deeds.append(f"{deed.__name__}{deed(self, image)}")
        return image, deeds

    # --- where, and what instead -----------------------------------------------------------

    def _log_offset(self, image: Image) -> int:
        inside = [offset for offset in self._log if offset + BLOCK_SIZE <= image.size]
        return self._rng.choice(inside or [0])

    def _any_block(self, image: Image) -> int:
        return self._rng.randrange(max(1, image.size // BLOCK_SIZE)) * BLOCK_SIZE

    def _number(self, old: int, size: int) -> int:
        rng = self._rng
        most = (1 << 8 * size) - 1
        kind = rng.randrange(4)
        if kind == 0:
            return rng.choice(EDGES) & most
        if kind == 1:
            return (old + rng.choice((-2, -1, 1, 2, 16))) & most
        if kind == 2:
            return old ^ (1 << rng.randrange(8 * size))
        return rng.getrandbits(8 * size)

    def _edit(self, block: bytearray, at: int, size: int) -> tuple[int, int]:
        old = int.from_bytes(block[at : at + size], "little")
        new = self._number(old, size)
        block[at : at + size] = new.to_bytes(size, "little")
        return at, new

    # --- deeds -----------------------------------------------------------------------------

    def superblock_field(self, image: Image) -> tuple:
        """Lie in one field of one or both superblocks, checksum right."""
        rng = self._rng
        told = []
        field = rng.choice(SUPERBLOCK_FIELDS)
        for offset in rng.choice((SUPERBLOCK_OFFSETS, SUPERBLOCK_OFFSETS[:1], SUPERBLOCK_OFFSETS[1:])):
            block = bytearray(image.read(offset, BLOCK_SIZE).ljust(BLOCK_SIZE, b"\0"))
            told.append((offset, *self._edit(block, *field)))
            block[-8:] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(block[:-8])))
            image.write(offset, bytes(block))
        return tuple(told)

    def log_field(self, image: Image) -> tuple:
        """Lie in one field of a log block, in all its sectors where they repeat it, checksum right."""
        rng = self._rng
        offset = self._log_offset(image)
        block = bytearray(image.read(offset, BLOCK_SIZE).ljust(BLOCK_SIZE, b"\0"))
        kind = rng.randrange(5)
        if kind == 0:
            at, size = rng.choice(SECTOR_FIELDS)
            told = self._edit(block, at, size)
            for sector in range(512, BLOCK_SIZE, 512):
                if at != 5:
                    block[sector + at : sector + at + size] = block[at : at + size]
        elif kind == 1:
            at, size = rng.choice(HEADER_FIELDS)
            told = self._edit(block, RECORD_SIZE + at, size)
        else:
            at, size = rng.choice(RECORD_FIELDS)
            record = rng.choice((2, 2, 3, rng.randrange(2, 16)))
            told = self._edit(block, record * RECORD_SIZE + at, size)
        self._seal(block, offset)
        image.write(offset, bytes(block))
        return (offset, *told)

    def _seal(self, block: bytearray, offset: int) -> None:
        struct.pack_into("<Q", block, RECORD_SIZE, 0)
        hasher = xxhash.xxh3_64(struct.pack("<16sQ", self._store_id, offset))
        hasher.update(bytes(block))
        struct.pack_into("<Q", block, RECORD_SIZE, hasher.intdigest())

    def moved_block(self, image: Image) -> tuple:
        """Put a block in another's place; a log block is made right for that place half the time."""
        source, target = self._log_offset(image), self._log_offset(image)
        block = bytearray(image.read(source, BLOCK_SIZE).ljust(BLOCK_SIZE, b"\0"))
        right = self._rng.random() < 0.5
        if right:
            self._seal(block, target)
        image.write(target, bytes(block))
        return source, target, right

    def swapped_stretches(self, image: Image) -> tuple:
        """Swap two runs of blocks."""
        count = self._rng.choice((1, 4, 16)) * BLOCK_SIZE
        one, two = self._any_block(image), self._any_block(image)
        first, second = image.read(one, count), image.read(two, count)
        image.write(one, second)
        image.write(two, first)
        return one, two, count

    def bits(self, image: Image) -> tuple:
        """Flip some bits of one block."""
        offset = self._rng.choice((self._log_offset(image), self._any_block(image)))
        bits = [self._rng.randrange(BLOCK_SIZE * 8) for _ in range(self._rng.choice((1, 1, 3, 40)))]
        for bit in bits:
            if offset + bit // 8 < image.size:
                image.flip(offset * 8 + bit)
        return offset, bits[:3]

    def noise(self, image: Image) -> tuple:
        """Overwrite some bytes, or a whole block, with random ones, or zeros."""
        rng = self._rng
        offset = rng.choice((self._log_offset(image), self._any_block(image)))
        size = min(rng.choice((1, 8, 512, BLOCK_SIZE)), max(0, image.size - offset))
        image.write(offset, rng.randbytes(size) if rng.random() < 0.6 else bytes(size))
        return offset, size

    def cut(self, image: Image) -> tuple:
        """Truncate, anywhere."""
        image.size = self._rng.randrange(image.size + 1)
        image.cut()
        image.write(image.size, bytes(-image.size % BLOCK_SIZE))  # what lay behind never comes back
        return (image.size,)

    def grown(self, image: Image) -> tuple:
        """Claim more length than there is, up to a TiB, as a sparse file may."""
        image.size += self._rng.choice((1, 512, BLOCK_SIZE, 1 << 20, 1 << 30, 1 << 40))
        return (image.size,)

    def all_noise(self, image: Image) -> tuple:
        """No store at all, or little of one."""
        size = self._rng.choice((0, 1, BLOCK_SIZE, 8192, 65536))
        image.blocks.clear()
        image.size = size
        image.write(0, self._rng.randbytes(size))
        return (size,)

    DEEDS = (superblock_field, log_field, moved_block, swapped_stretches, bits, noise, cut, grown, all_noise)
    WEIGHTS = (16, 45, 10, 5, 8, 8, 5, 6, 1)
