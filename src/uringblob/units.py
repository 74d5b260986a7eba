"""Sizes, all in bytes, and names that the whole library shares."""

from __future__ import annotations

from typing import Final

#: The default frame size.
PAGE_SIZE: Final = 512 * 1024

#: The alignment of every buffer address and of every file offset.
BUF_ALIGN: Final = 4096

PAGE_SIZE_MIN: Final = 4096
PAGE_SIZE_MAX: Final = 16 * 1024 * 1024


class Permissions(int):
    """Permission bits, shown in octal: ``0o600`` and not ``384``."""

    def __repr__(self) -> str:
        return f"0o{self:03o}"


#: What ``open(engine=...)`` takes.
ENGINES: Final = ("auto", "io_uring", "pread")

#: Of a new store file: its owner alone.
MODE: Final = Permissions(0o600)


def check_page_size(page_size: int) -> int:
    """Return ``page_size`` if a store can have it, else raise.

    :raises TypeError: not an int.
    :raises ValueError: not a power of two from 4096 to 16 MiB.
    """
    if not isinstance(page_size, int) or isinstance(page_size, bool):
        raise TypeError(f"page_size must be an int, not {type(page_size).__name__}")
    in_range = PAGE_SIZE_MIN <= page_size <= PAGE_SIZE_MAX
    if not in_range or page_size & (page_size - 1):
        raise ValueError(
            f"page_size {page_size} is not a power of two from {PAGE_SIZE_MIN} to {PAGE_SIZE_MAX} bytes"
        )
    return page_size
