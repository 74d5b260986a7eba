"""The options with which a store opens its engine."""

from __future__ import annotations

import asyncio
import dataclasses

from uringblob import tuning


@dataclasses.dataclass(frozen=True)
class EngineRequest:
    """The options of ``open`` that concern engines.

    ``fd`` is the store's one descriptor, open and locked; ``path`` names it in messages and
    says where O_DIRECT is tried out.  ``engine`` is ``"auto"``, ``"io_uring"`` or ``"pread"``.
    """

    fd: int
    path: str
    page_size: int
    engine: str
    direct: bool | None
    buffers: int | None
    queue_depth: int
    read_only: bool
    loop: asyncio.AbstractEventLoop

    @property
    def buffers_asked(self) -> int:
        """How many frames the pool shall have: ``buffers``, or 64 or as many as 32 MiB hold."""
        if self.buffers is not None:
            return self.buffers
        return max(1, min(tuning.BUFFERS_DEFAULT, tuning.BUFFERS_DEFAULT_BYTES_MAX // self.page_size))
