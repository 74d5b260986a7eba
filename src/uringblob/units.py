"""Sizes, all in bytes, and names that the whole library shares."""

from __future__ import annotations

import operator
from typing import Final

#: The default frame size.
PAGE_SIZE: Final = 512 * 1024

#: The alignment of every buffer address and of every file offset.
BUF_ALIGN: Final = 4096

PAGE_SIZE_MIN: Final = 4096
PAGE_SIZE_MAX: Final = 64 * 1024 * 1024

#: Of metadata, a blob's; and of a store's label, in UTF-8.
META_BYTES_MAX: Final = 255
LABEL_BYTES_MAX: Final = 64


class Permissions(int):
    """Permission bits, shown in octal: ``0o600`` and not ``384``."""

    def __repr__(self) -> str:
        return f"0o{self:03o}"


#: What ``open(engine=...)`` takes.
ENGINES: Final = ("auto", "io_uring", "pread")

#: Of a new store file: its owner alone.
MODE: Final = Permissions(0o600)


def check_max_bytes(max_bytes: int | None) -> int | None:
    """Return ``max_bytes`` if it can be a store's limit, else raise.

    :raises TypeError: neither an int nor ``None``.
    :raises ValueError: it is below 1.
    """
    if max_bytes is None:
        return None
    if not hasattr(max_bytes, "__index__"):
        raise TypeError(f"max_bytes must be an int or None, not {type(max_bytes).__name__}")
    limit = operator.index(max_bytes)
    if limit < 1:
        raise ValueError(f"max_bytes must be 1 or more bytes, or None for no limit, not {limit}")
    return limit


def check_page_size(page_size: int) -> int:
    """Return ``page_size`` if a store can have it, else raise.

    :raises TypeError: not an int.
    :raises ValueError: not a multiple of 4096 from 4096 to 64 MiB.
    """
    if not isinstance(page_size, int) or isinstance(page_size, bool):
        raise TypeError(f"page_size must be an int, not {type(page_size).__name__}")
    if not PAGE_SIZE_MIN <= page_size <= PAGE_SIZE_MAX or page_size % BUF_ALIGN:
        raise ValueError(
            f"page_size {page_size} is not a multiple of {BUF_ALIGN} from {PAGE_SIZE_MIN} to {PAGE_SIZE_MAX} "
            "bytes"
        )
    return page_size


def check_label(label: str) -> bytes:
    """Return the bytes of ``label`` if a store can have it, else raise.

    :raises TypeError: not a ``str``.
    :raises ValueError: too long, or with a character that UTF-8 lacks, or NUL, which would be cut off.
    """
    if not isinstance(label, str):
        raise TypeError(f"a label is a str, not {type(label).__name__}")
    encoded = label.encode()
    if len(encoded) > LABEL_BYTES_MAX:
        raise ValueError(f"a label has at most {LABEL_BYTES_MAX} bytes of UTF-8, not {len(encoded)}")
    if "\0" in label:
        raise ValueError(f"a label has no NUL character: {label!r}")
    return encoded
