"""The figures of a ring."""

from __future__ import annotations

import dataclasses

from uringblob.ring.setup import SetupFlags


@dataclasses.dataclass(frozen=True)
class RingStats:
    """A ring's figures at one moment; ``enters`` counts calls of ``io_uring_enter``.

    ``submitted`` and ``completed`` count operations that the kernel accepted and completed;
    ``waiting`` those queued that it has not accepted; ``in_flight`` is the sum of those waiting and
    those in the kernel.
    """

    sq_entries: int
    cq_entries: int
    setup_flags: SetupFlags
    files: int
    registered_bytes: int
    enters: int
    submitted: int
    completed: int
    waiting: int
    in_flight: int
    closed: bool
