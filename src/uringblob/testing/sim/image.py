"""The bytes of a simulated disk, as a dict of 4096-byte blocks: copying one costs microseconds."""

from __future__ import annotations

from collections.abc import Iterable

BLOCK = 4096
SECTOR = 512
_BLANK = bytes(BLOCK)


class Image:
    """A file's contents and length.  Blocks that were never written, or zeroed, are not kept."""

    __slots__ = ("blocks", "size")

    def __init__(self, blocks: dict[int, bytes] | None = None, size: int = 0) -> None:
        self.blocks = {} if blocks is None else blocks
        self.size = size

    def __repr__(self) -> str:
        return f"<Image {self.size} bytes, {len(self.blocks)} blocks not blank>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.size == other.size and self.blocks == other.blocks

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Image:
        """Return an independent copy; blocks are shared until they are written."""
        return Image(self.blocks.copy(), self.size)

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes from ``offset`` on; fewer at the end of the file."""
        size = max(0, min(size, self.size - offset))
        first, skip = divmod(offset, BLOCK)
        get = self.blocks.get
        count = -(-(skip + size) // BLOCK)
        if count == 1 and size == BLOCK:
            return get(first, _BLANK)
        data = b"".join([get(index, _BLANK) for index in range(first, first + count)])
        return data[skip : skip + size]

    def next_data(self, offset: int) -> int:
        """Return the offset of the first block that is not blank, from ``offset``'s on, or the length."""
        first = offset // BLOCK
        return min((index * BLOCK for index in self.blocks if index >= first), default=self.size)

    def write(self, offset: int, data: bytes) -> None:
        """Write ``data`` at ``offset``; the length stays as it is."""
        index, skip = divmod(offset, BLOCK)
        if skip or len(data) % BLOCK:
            head = self.blocks.get(index, _BLANK)[:skip]
            last, used = divmod(offset + len(data), BLOCK)
            tail = self.blocks.get(last, _BLANK)[used:] if used else b""
            data = head + data + tail
        blocks = self.blocks
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK]
            if block == _BLANK:
                blocks.pop(index, None)
            else:
                blocks[index] = block
            index += 1

    def write_sectors(self, offset: int, data: bytes, sectors: Iterable[int]) -> None:
        """Write only these 512-byte sectors of ``data``, counted from its start."""
        for sector in sectors:
            at = sector * SECTOR
            self.write(offset + at, data[at : at + SECTOR])

    def cut(self) -> None:
        """Lose the blocks behind the end of the file."""
        end = -(-self.size // BLOCK)
        for index in [index for index in self.blocks if index >= end]:
            del self.blocks[index]

    def flip(self, bit: int) -> None:
        """Flip bit ``bit``, counted from the file's first."""
        byte = bit // 8
        value = self.read(byte, 1)[0] ^ (1 << bit % 8)
        self.write(byte, bytes([value]))
