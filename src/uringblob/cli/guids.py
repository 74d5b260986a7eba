"""Guids as people write them."""

from __future__ import annotations

import argparse

from uringblob.guid import GUID_SIZE, BlobGuid, is_guid_text


def parse_guid(text: str) -> BlobGuid:
    """Return the guid that ``text`` stands for: 32 hex digits, or the 8-4-4-4-12 form of a UUID.

    :raises argparse.ArgumentTypeError: anything else.
    """
    if not is_guid_text(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no guid: give {2 * GUID_SIZE} hex digits or a UUID")
    return BlobGuid(text)
