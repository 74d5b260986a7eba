"""Guids as people write them."""

from __future__ import annotations

import argparse
import re
import uuid

from uringblob.guid import GUID_SIZE, BlobGuid

#: ``uuid.UUID`` takes more: hyphens anywhere, ``0x``, ``_`` between digits; a typing error would be a name.
_FORMS = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def parse_guid(text: str) -> BlobGuid:
    """Return the guid that ``text`` stands for: 32 hex digits, or the 8-4-4-4-12 form of a UUID.

    :raises argparse.ArgumentTypeError: anything else.
    """
    if not _FORMS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no guid: give {2 * GUID_SIZE} hex digits or a UUID")
    return BlobGuid(uuid.UUID(hex=text))
