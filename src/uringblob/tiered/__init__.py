"""A file store as the tier of a remote one: reads at the speed of the disk, commits that outlive the machine."""

from __future__ import annotations

from uringblob.tiered.async_tiered import AsyncTieredBlobStore, TierStats

__all__ = ["AsyncTieredBlobStore", "TierStats"]
