"""Free slots whose blocks an earlier vacuum gave back: an opener sets them aside, as the vacuum did.

Free slots are allocated, so that a change which has one finds room.  Those in a hole are allocated before
they are used, as the file grows (:meth:`FileGrowth.fill_hole`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from uringblob.engines.to_thread import to_thread
from uringblob.errors import check_rc
from uringblob.store.core import Core
from uringblob.store.format import SlotRun
from uringblob.store.index.slot_states import SlotState


async def set_holes_aside(core: Core) -> None:
    """Make the free slots that lack blocks holes; only where a vacuum makes some."""
    fd, slots = core.file.fd, core.index.slots
    if fd < 0 or not core.file_io.engine.direct_io or not hasattr(os, "SEEK_HOLE"):
        return
    status = os.fstat(fd)
    if status.st_blocks * 512 < status.st_size:
        for run in await to_thread(_without_blocks, core, slots.free_runs()):
            slots.move_run(run, SlotState.HOLE)


def _without_blocks(core: Core, runs: Sequence[SlotRun]) -> list[SlotRun]:
    """Return the slots of ``runs`` that have a hole somewhere; to the system, blocks never written are one, too."""
    fd, page_size, found = core.file.fd, core.page_size, list[SlotRun]()
    for run in runs:
        slot = run.slot
        while slot < run.end and (hole := os.lseek(fd, slot * page_size, os.SEEK_HOLE)) < run.end * page_size:
            first, data = hole // page_size, core.file_io.engine.next_data(hole)
            if data == -errno.ENXIO:
                slot = run.end  # there are none behind it
            else:
                data = check_rc(data, f"{core.file.path}: asking for data from offset {hole} on")
                slot = max(first + 1, min(-(-data // page_size), run.end))
            found.append(SlotRun(first, slot - first))
    return found
