"""What a ring can say about itself."""

from __future__ import annotations

import dataclasses

from uringblob.ring.setup import SetupFlags


@dataclasses.dataclass(frozen=True)
class RingStats:
    """A moment's figures; ``enters`` counts calls of ``io_uring_enter``.

    ``submitted`` and ``completed`` count operations that the kernel took and that it ended;
    ``waiting`` those asked for that it has not taken yet; ``in_flight`` is the sum of what is
    waiting and what the kernel holds.
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
