"""The feature flags of a store file, by name."""

from __future__ import annotations

from uringblob.store.format import Superblock


def feature_names(superblock: Superblock) -> list[str]:
    """Return the flags that are set, by kind and bit: this release has a name for none of them."""
    return _names("compatible", superblock.compatible) + _needed(superblock)


def unknown_features(superblock: Superblock) -> str:
    """Return those that this release would have to know, in words, for a message that refuses them."""
    return ", ".join(_needed(superblock))


def _needed(superblock: Superblock) -> list[str]:
    return _names("incompatible", superblock.incompatible) + _names(
        "read-only compatible", superblock.read_only_compatible
    )


def _names(kind: str, flags: int) -> list[str]:
    return [f"{kind} feature {bit}" for bit in range(flags.bit_length()) if flags >> bit & 1]
