"""The work of a contender, and the setting of a case."""

from __future__ import annotations

import dataclasses
import enum

from uringblob import PAGE_SIZE

MIB = 1 << 20


class Verb(enum.Enum):
    """What one call does with its frames."""

    #: Fill one buffer with one frame.
    READ = "read"
    #: Replace frames; they need not be durable.
    WRITE = "write"
    #: Replace frames; their bytes are durable at the return.
    BATCH = "batch"
    #: Replace frames; durable at the return, names and all (atomic where the contender can).
    COMMIT = "commit"
    #: No I/O: how late the event loop comes to a timer that is due every millisecond.
    TICK = "tick"
    #: No I/O: how late ``asyncio.sleep`` of a millisecond ends; see :mod:`uringblob_bench.ticker`.
    SLEEP = "sleep"


@dataclasses.dataclass(frozen=True)
class Load:
    """``workers`` tasks or threads that each make calls of ``frames`` frames, one after the other."""

    verb: Verb
    workers: int = 1
    frames: int = 1

    @property
    def is_ticker(self) -> bool:
        """Whether it watches the event loop, and does no I/O."""
        return self.verb in {Verb.TICK, Verb.SLEEP}

    @property
    def in_flight(self) -> int:
        """Frames in flight."""
        return 0 if self.is_ticker else self.workers * self.frames

    def __str__(self) -> str:
        many = f" of {self.frames}" if self.frames > 1 else ""
        return f"{self.workers} x {self.verb.value}{many}"


@dataclasses.dataclass(frozen=True)
class Params:
    """The setting of one case; a contender that cannot follow a part of it shows that in its settings."""

    #: Bytes in a frame, a multiple of 4 KiB.
    page_size: int = PAGE_SIZE
    #: Bytes in every contender's file (or in its data, for those that decide on their files alone).
    file_bytes: int = 1024 * MIB
    #: Whether buffers are registered with the ring.
    registered: bool = True
    #: Whether buffers lie on huge pages.
    huge: bool = True
    #: Whether the store checks checksums of what it reads.
    verify: bool = True
    #: ``asyncio`` or ``uvloop``.
    loop: str = "asyncio"
    #: What wakes the event loop for completions: ``ring``, its own descriptor, or ``eventfd``.
    wakeup: str = "ring"
    #: How the bare ring makes a batch durable: see :mod:`uringblob_bench.contenders.ring_sync`.
    sync: str = "two-phase"
    #: Whether everything is held on one CPU.
    one_core: bool = False

    @property
    def frames(self) -> int:
        """Frames that a contender's file holds."""
        return max(self.file_bytes // self.page_size, 2)

    @property
    def data_bytes(self) -> int:
        """Bytes of whole frames in a contender's file; more than ``file_bytes`` only for two large frames."""
        return self.frames * self.page_size

    @property
    def live(self) -> int:
        """Frames that a store holds: three eighths of its file's slots.

        All of them may then be overwritten within one turn, and the free slots that take them are
        written ones: the store grows its file only when less than a quarter of it is free.
        """
        return max(self.frames * 3 // 8, 1)
