"""Public face of :mod:`uringblob.buffers.checksum`: the checksum of a frame."""

from uringblob.buffers.checksum import frame_checksum

__all__ = ["frame_checksum"]
