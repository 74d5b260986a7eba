"""Public face of :mod:`uringblob.buffers.views`: a caller's buffer as bytes, for those who write a store."""

from uringblob.buffers.views import (
    BlobBuffer,
    Write,
    as_pair,
    as_write,
    check_no_single_guid,
    check_range,
    check_readable,
    check_writable,
    checked_commit,
    checked_deletes,
    checked_meta,
    checked_writes,
    guid_list,
    readable_view,
    size_of,
    writable_view,
)

__all__ = [
    "BlobBuffer",
    "Write",
    "as_pair",
    "as_write",
    "check_no_single_guid",
    "check_range",
    "check_readable",
    "check_writable",
    "checked_commit",
    "checked_deletes",
    "checked_meta",
    "checked_writes",
    "guid_list",
    "readable_view",
    "size_of",
    "writable_view",
]
