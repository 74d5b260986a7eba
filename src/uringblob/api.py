"""The trait's two faces, in one place to import them from."""

from __future__ import annotations

from uringblob.async_api import AsyncBlobStore
from uringblob.sync_api import BlobStore

__all__ = ["AsyncBlobStore", "BlobStore"]
