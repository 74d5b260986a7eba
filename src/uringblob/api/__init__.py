"""The trait's two faces, in one place to import them from."""

from __future__ import annotations

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.sync_store import BlobStore

__all__ = ["AsyncBlobStore", "BlobStore"]
